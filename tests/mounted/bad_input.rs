//! What is refused: exit code 1, one sentence on standard error that names what is wrong, and nothing changed on disk.

use std::fs;
use std::path::Path;

use support::image::Image;
use support::lamina::Lamina;
use support::literal::plant;
use support::{LaminaMount, Layers, Tree, View, dir, file, machine, needs};

/// Every refusal has this shape. `word` is what the sentence must name.
#[track_caller]
fn assert_refused(lamina: &Lamina, home: &Path, word: &str) {
    let before = Tree::read(home);
    let finished = lamina.run();
    if finished.status.success() {
        lamina.unmount_unexpected();
    }
    let text = finished.stderr.trim();
    assert_eq!(finished.status.code(), Some(1), "exit status; it said: {text}");
    assert!(text.contains(word), "{word} is not in: {text}");
    assert!(text.split_whitespace().count() > 3, "not a sentence: {text}");
    assert!(
        !text.contains("panicked") && !text.contains("RUST_BACKTRACE") && !text.contains("Error {"),
        "not for people: {text}"
    );
    before.assert_same(&Tree::read(home), View::ALL);
}

fn layers() -> Layers {
    Layers::new(&[&[file("f", "x"), dir("d")]])
}

#[test]
fn missing_lower() {
    needs!(machine::mounts());
    let layers = layers();
    let options = layers.options().replace("lower0", "lower7");
    assert_refused(&Lamina::with_options(&options, &layers.merged), layers.home(), "lower7");
}

#[test]
fn lower_that_is_no_directory() {
    needs!(machine::mounts());
    let layers = layers();
    let options = layers.options().replace("lower0", "lower0/f");
    assert_refused(&Lamina::with_options(&options, &layers.merged), layers.home(), "lower0/f");
}

#[test]
fn no_lower_at_all() {
    needs!(machine::mounts());
    let layers = layers();
    let options = format!("upperdir={},workdir={}", layers.upper.display(), layers.work.display());
    assert_refused(&Lamina::with_options(&options, &layers.merged), layers.home(), "lowerdir");
}

#[test]
fn missing_upper() {
    needs!(machine::mounts());
    let layers = layers();
    let options = layers.options().replace("/upper", "/nowhere");
    assert_refused(&Lamina::with_options(&options, &layers.merged), layers.home(), "nowhere");
}

#[test]
fn upper_without_work() {
    needs!(machine::mounts());
    let layers = layers();
    let options = format!("{},upperdir={}", layers.lower_option(), layers.upper.display());
    assert_refused(&Lamina::with_options(&options, &layers.merged), layers.home(), "workdir");
}

#[test]
fn upper_that_is_a_lower() {
    needs!(machine::mounts());
    let layers = layers();
    let options = layers.options().replace("/upper", "/lower0");
    assert_refused(&Lamina::with_options(&options, &layers.merged), layers.home(), "lower0");
}

#[test]
fn upper_inside_a_lower() {
    needs!(machine::mounts());
    let layers = layers();
    let options = layers.options().replace("/upper", "/lower0/d");
    assert_refused(&Lamina::with_options(&options, &layers.merged), layers.home(), "lower0/d");
}

#[test]
fn lower_inside_the_upper() {
    needs!(machine::mounts());
    let layers = layers();
    plant(&layers.upper, &[dir("l")]);
    let options = layers.options().replace("lower0", "upper/l");
    assert_refused(&Lamina::with_options(&options, &layers.merged), layers.home(), "upper");
}

#[test]
fn work_inside_the_upper() {
    needs!(machine::mounts());
    let layers = layers();
    plant(&layers.upper, &[dir("w")]);
    let options = layers.options().replace("/work", "/upper/w");
    assert_refused(&Lamina::with_options(&options, &layers.merged), layers.home(), "upper/w");
}

#[test]
fn mountpoint_inside_the_upper() {
    needs!(machine::mounts());
    let layers = layers();
    plant(&layers.upper, &[dir("m")]);
    assert_refused(&Lamina::with_options(&layers.options(), &layers.upper.join("m")), layers.home(), "upper/m");
}

#[test]
fn missing_mountpoint() {
    needs!(machine::mounts());
    let layers = layers();
    assert_refused(&Lamina::with_options(&layers.options(), &layers.home().join("nowhere")), layers.home(), "nowhere");
}

#[test]
fn work_on_another_filesystem() {
    needs!(machine::mounts());
    let (image, mut layers) = (Image::tmpfs(4), layers());
    layers.work = image.path().join("work");
    fs::create_dir(&layers.work).unwrap();
    assert_refused(&Lamina::on(&layers), layers.home(), "work");
    assert_eq!(fs::read_dir(&layers.work).unwrap().count(), 0);
}

/// Two servers on one upper would each believe their own caches.
#[test]
fn work_in_use_by_a_live_mount() {
    needs!(machine::mounts());
    let layers = layers();
    let elsewhere = tempfile::tempdir().unwrap();
    let mount = LaminaMount::new(&layers);
    fs::write(mount.join("f"), "changed").unwrap();
    let second = Lamina::with_options(&layers.options(), elsewhere.path()).run();
    assert_eq!(second.status.code(), Some(1), "{}", second.stderr);
    assert!(second.stderr.contains("work"), "{}", second.stderr);
    assert_eq!(fs::read(mount.join("f")).unwrap(), b"changed", "the first goes on");
    drop(mount);
    drop(Lamina::with_options(&layers.options(), elsewhere.path()).mount());
}

#[test]
fn unparsable_options() {
    needs!(machine::mounts());
    for (option, word) in [
        ("uidmapping=0:0", "uidmapping"),
        ("gidmapping=a:b:c", "gidmapping"),
        ("uidmapping=0:0:99999999999", "uidmapping"),
        ("squash_to_uid=root", "squash_to_uid"),
        ("xattr_permissions=3", "xattr_permissions"),
        ("timeout=soon", "timeout"),
        ("redirect_dir=on", "redirect_dir"),
    ] {
        let layers = layers();
        assert_refused(&Lamina::on(&layers).option(option), layers.home(), word);
    }
}

#[test]
fn no_mountpoint_argument() {
    let output = std::process::Command::new(support::lamina::binary()).args(["-o", "lowerdir=/"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!output.stderr.is_empty());
}

/// In a mount namespace of its own, whose /dev has only null.
#[test]
fn no_fuse_device() {
    needs!(machine::mounts(), machine::program("unshare"));
    let layers = layers();
    let script = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec \"$@\"";
    let lamina = Lamina::on(&layers).through(&["unshare", "-m", "sh", "-c", script, "sh"]);
    assert_refused(&lamina, layers.home(), "/dev/fuse");
}

/// A plain user who may open /dev/fuse, but on whose machine the helper that mounts is missing.
#[test]
fn no_fusermount() {
    needs!(machine::mounts(), machine::program("unshare"), machine::program("setpriv"));
    let layers = layers();
    for path in [layers.home(), &layers.upper, &layers.work, &layers.merged] {
        std::os::unix::fs::chown(path, Some(1000), Some(1000)).unwrap();
    }
    // The node must not lie on /dev itself: its mode is the machine's.
    let script = "mount -t tmpfs none /mnt && mknod -m 666 /mnt/fuse c 10 229 && mount --bind /mnt/fuse /dev/fuse
        for helper in /usr/bin/fusermount3 /usr/bin/fusermount /bin/fusermount3 /bin/fusermount; do
            test ! -e $helper || mount --bind /dev/null $helper
        done
        exec setpriv --reuid 1000 --regid 1000 --clear-groups \"$@\"";
    let lamina = Lamina::on(&layers).through(&["unshare", "-m", "sh", "-c", script, "sh"]);
    assert_refused(&lamina, layers.home(), "fusermount");
}

#[test]
fn unreadable_lower_for_a_plain_user() {
    needs!(machine::mounts(), machine::program("setpriv"));
    let layers = Layers::new(&[&[dir(".").mode(0o700), file("f", "x")]]);
    let lamina = Lamina::on(&layers).through(&["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"]);
    assert_refused(&lamina, layers.home(), "lower0");
}
