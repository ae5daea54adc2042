//! The command line: how a mount is started, named, found, and ended. What the callers of fuse-overlayfs rely on.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, umount2};
use rustix::process::Signal;
use support::lamina::{Lamina, binary, find_server, wait_until_mounted};
use support::{LaminaMount, Layers, Tree, file, machine, needs, skip};

/// (source, filesystem type, options of the superblock) of a mount.
fn mount_line(path: &Path) -> Option<(String, String, String)> {
    let table = fs::read_to_string("/proc/thread-self/mounts").unwrap();
    table
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|words| Path::new(words[1]) == path)
        .map(|words| (words[0].to_owned(), words[2].to_owned(), words[3].to_owned()))
}

fn version_as(name: &str) -> String {
    let place = tempfile::tempdir().unwrap();
    let link = place.path().join(name);
    std::os::unix::fs::symlink(binary(), &link).unwrap();
    let output = Command::new(&link).arg("--version").output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn version_answers_under_the_name_it_was_called_by() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        version_as("fuse-overlayfs").lines().next().unwrap().starts_with("fuse-overlayfs: version "),
        "podman shows this line"
    );
    assert!(version_as("lamina-fs").contains(version));
}

/// Podman reads standard error to its end: a server that kept the pipe open would hang it.
#[test]
fn command_returns_with_the_mount_live_and_its_pipes_closed() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("f", "x")]]);
    let output = Lamina::on(&layers).command().stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let live = fs::read(layers.merged.join("f"));
    let server = find_server(&layers.merged);
    umount2(&layers.merged, MntFlags::MNT_DETACH).unwrap();
    assert!(output.status.success() && server.is_some());
    assert_eq!(live.unwrap(), b"x", "live before the command returned");
}

#[test]
fn foreground_server_stays_and_ends_with_the_mount() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("f", "x")]]);
    let mut child = Lamina::on(&layers).command().arg("-f").stderr(Stdio::null()).spawn().unwrap();
    wait_until_mounted(&layers.merged);
    assert_eq!(fs::read(layers.merged.join("f")).unwrap(), b"x");
    assert!(child.try_wait().unwrap().is_none(), "still in the foreground");
    umount2(&layers.merged, MntFlags::empty()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn sigterm_unmounts_cleanly() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[]]);
    let mut mount = LaminaMount::new(&layers);
    fs::write(mount.join("f"), "written before the signal").unwrap();
    rustix::process::kill_process(mount.server_pid(), Signal::TERM).unwrap();
    mount.wait_for_exit();
    assert_eq!(mount_line(&layers.merged), None);
    assert_eq!(fs::read(layers.upper.join("f")).unwrap(), b"written before the signal");
}

#[test]
fn type_and_source_are_what_callers_look_for() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[]]);
    let mount = LaminaMount::new(&layers);
    let (_, kind, options) = mount_line(mount.path()).unwrap();
    assert!(kind == "fuse.lamina-fs" || kind == "fuse.fuse-overlayfs", "{kind}");
    for word in ["default_permissions", "allow_other", "noatime"] {
        assert!(options.split(',').any(|option| option == word), "{word} is missing in {options}");
    }
}

#[test]
fn without_upper_the_mount_is_read_only() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("f", "top")], &[file("f", "low"), file("g", "low")]]);
    let mount = Lamina::read_only(&layers).mount();
    assert_eq!(fs::read(mount.join("f")).unwrap(), b"top");
    assert_eq!(fs::read(mount.join("g")).unwrap(), b"low");
    assert_eq!(fs::write(mount.join("new"), "").unwrap_err().raw_os_error(), Some(libc::EROFS));
    assert_eq!(fs::remove_file(mount.join("f")).unwrap_err().raw_os_error(), Some(libc::EROFS));
    layers.assert_lowers_untouched();
}

#[test]
fn ro_makes_a_writable_stack_read_only() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("f", "x")]]);
    let mount = Lamina::on(&layers).option("ro").mount();
    assert_eq!(fs::write(mount.join("f"), "").unwrap_err().raw_os_error(), Some(libc::EROFS));
}

#[test]
fn unknown_words_are_warned_about_and_ignored() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("f", "x")]]);
    let context = r#"context="system_u:object_r:container_file_t:s0:c1,c2",lazytime,metacopy=off"#;
    let finished = Lamina::on(&layers).option(context).run();
    assert!(finished.status.success(), "{}", finished.stderr);
    umount2(&layers.merged, MntFlags::MNT_DETACH).unwrap();
    assert!(finished.stderr.contains("unknown argument ignored: lazytime"), "{}", finished.stderr);
    assert!(!finished.stderr.contains("c2"), "a quoted comma splits nothing: {}", finished.stderr);
}

/// containers-storage names lowers by symbolic links, and a path may hold a colon.
#[test]
fn lowers_may_be_links_and_have_colons() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("top", "")], &[file("low", "")]]);
    let (short, colon) = (layers.home().join("l"), layers.home().join("a:b"));
    std::os::unix::fs::symlink(&layers.lowers[0], &short).unwrap();
    fs::rename(&layers.lowers[1], &colon).unwrap();
    let escaped = colon.to_str().unwrap().replace(':', "\\:");
    let options = format!("lowerdir={}:{escaped}", short.display());
    let mount = Lamina::with_options(&options, &layers.merged).mount();
    assert!(mount.join("top").exists() && mount.join("low").exists());
}

fn mounted_by(command: &mut Command, layers: &Layers) {
    let path = format!("{}:{}", binary().parent().unwrap().display(), std::env::var("PATH").unwrap());
    let output = command.env("PATH", path).output().unwrap();
    let shown = fs::read(layers.merged.join("f"));
    let kind = mount_line(&layers.merged);
    let unmounted = umount2(&layers.merged, MntFlags::MNT_DETACH);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(shown.unwrap(), b"x");
    assert!(kind.is_some() && unmounted.is_ok());
}

/// mount(8) resets the search path, so the binary is put on it: in a mount namespace of the test's own.
#[test]
fn mount_finds_it_by_type() {
    needs!(machine::mounts(), machine::program("mount.fuse"), machine::program("unshare"));
    let layers = Layers::new(&[&[file("f", "x")]]);
    let script = "mount --bind \"$1\" /usr/local/bin && mount -t fuse.lamina-fs overlay \"$2\" -o \"$3\" && cat \"$2/f\" && umount \"$2\"";
    let (bin, merged) = (binary().parent().unwrap().to_str().unwrap(), layers.merged.to_str().unwrap());
    assert_eq!(machine::run("unshare", &["-m", "sh", "-euc", script, "sh", bin, merged, &layers.options()]), "x");
}

/// How containerd runs it: mount.fuse3 with several -o, source `overlay`.
#[test]
fn mount_fuse3_finds_it_by_type() {
    needs!(machine::mounts());
    let Some(helper) = machine::find_program("mount.fuse3") else { skip!("mount.fuse3 is not installed") };
    let layers = Layers::new(&[&[file("f", "x")]]);
    let mut command = Command::new(helper);
    command.arg("overlay").arg(&layers.merged);
    layers.options().split(',').for_each(|option| {
        command.args(["-o", option]);
    });
    mounted_by(command.args(["-t", "lamina-fs"]), &layers);
}

#[test]
fn noxattrs_answers_that_there_are_none() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("f", "x").xattr("user.k", "v")]]);
    let mount = Lamina::on(&layers).option("noxattrs=1").mount();
    let refused = support::literal::set_xattr(&mount.join("f"), "user.n", b"v").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EOPNOTSUPP));
    assert_eq!(support::literal::xattr(&mount.join("f"), "user.k"), None);
}

#[test]
fn static_nlink_reports_directories_with_one_link() {
    needs!(machine::mounts());
    use std::os::unix::fs::MetadataExt;
    let layers = Layers::new(&[&[support::dir("d"), support::dir("d/a"), support::dir("d/b")]]);
    let mount = Lamina::on(&layers).option("static_nlink").mount();
    assert_eq!(mount.join("d").metadata().unwrap().nlink(), 1);
}

/// timeout=0: what changes under the mount shows without a remount.
#[test]
fn timeout_zero_shows_changes_made_behind_the_mount() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("f", "x")]]);
    let mount = Lamina::on(&layers).option("timeout=0").mount();
    assert!(!mount.join("late").exists());
    fs::write(layers.upper.join("late"), "now").unwrap();
    assert_eq!(fs::read(mount.join("late")).unwrap(), b"now");
}

#[test]
fn every_documented_word_is_accepted_silently() {
    needs!(machine::mounts());
    for word in [
        "threaded=1",
        "fsync=0",
        "volatile",
        "writeback=0",
        "noacl",
        "xino=auto",
        "xino=on",
        "redirect_dir=off",
        "suid,dev,exec",
        "nosuid,nodev",
        "noatime",
        "max_write=131072",
        "allow_other,default_permissions",
        "fast_ino=1",
        "rw",
    ] {
        let layers = Layers::new(&[&[file("f", "x")]]);
        let finished = Lamina::on(&layers).option(word).run();
        assert!(finished.status.success(), "{word}: {}", finished.stderr);
        let written =
            fs::OpenOptions::new().append(true).open(layers.merged.join("f")).and_then(|mut open| open.write_all(b"y"));
        umount2(&layers.merged, MntFlags::MNT_DETACH).unwrap();
        assert!(written.is_ok(), "{word}");
        assert!(!finished.stderr.contains("unknown"), "{word}: {}", finished.stderr);
    }
}

/// The marker says that the upper may be torn. Who wants it in spite of a crash removes the marker, as containers-storage does.
#[test]
fn volatile_mount_that_crashed_is_refused_until_the_marker_is_removed() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("f", "x")]]);
    let mut mount = Lamina::on(&layers).option("volatile").mount();
    let marker = layers.work.join("work/incompat/volatile");
    assert!(marker.is_dir(), "the marker is there while the mount lives");
    fs::write(mount.join("f"), "y").unwrap();
    rustix::process::kill_process(mount.server_pid(), Signal::KILL).unwrap();
    mount.wait_for_exit();
    umount2(&layers.merged, MntFlags::MNT_DETACH).unwrap();
    let refused = Lamina::on(&layers).run();
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains("volatile"), "{}", refused.stderr);
    fs::remove_dir(&marker).unwrap();
    drop(LaminaMount::new(&layers));
}

#[test]
fn killed_server_leaves_an_upper_that_mounts_again() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("f", "x"), file("g", "x")]]);
    let mut mount = LaminaMount::new(&layers);
    let mut open = fs::OpenOptions::new().append(true).open(mount.join("f")).unwrap();
    open.write_all(b"y").unwrap();
    open.sync_all().unwrap();
    fs::remove_file(mount.join("g")).unwrap();
    rustix::process::kill_process(mount.server_pid(), Signal::KILL).unwrap();
    mount.wait_for_exit();
    drop(open);
    umount2(&layers.merged, MntFlags::MNT_DETACH).unwrap();
    let mount = LaminaMount::new(&layers);
    assert_eq!(fs::read(mount.join("f")).unwrap(), b"xy");
    assert!(!mount.join("g").exists());
}

/// fuse-overlayfs hangs when it walks a lower layer into its own mount, #344 and #364. What lies below a mountpoint is not the layer's.
#[test]
fn mountpoint_over_or_inside_a_lower_is_walked_without_a_hang() {
    needs!(machine::mounts());
    for inside in [".", "d"] {
        let layers = Layers::new(&[&[file("f", "x"), support::dir("d"), file("d/g", "y")]]);
        let mount = Lamina::with_options(&layers.options(), &layers.lowers[0].join(inside)).mount();
        assert_eq!(Tree::read(mount.path()).paths(), ["d", "d/g", "f"], "mounted at {inside}");
    }
}
