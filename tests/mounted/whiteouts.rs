//! Whiteouts and opaque directories: every format read in every layer, and exactly what is written.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use support::lamina::Lamina;
use support::literal::{Entry, Opaque, xattr};
use support::{LaminaMount, Layers, Tree, dir, dot_whiteout, file, machine, needs, whiteout, xattr_whiteout};

type Mark = fn(&str) -> Entry;

const MARKS: [(&str, Mark); 4] = [
    ("chardev 0:0", whiteout),
    (".wh.NAME", dot_whiteout),
    ("user xattr", |path| xattr_whiteout(path, "user.")),
    ("trusted xattr", |path| xattr_whiteout(path, "trusted.")),
];

const OPAQUES: [Opaque; 4] = [Opaque::User, Opaque::FuseOverlayfs, Opaque::File, Opaque::Trusted];

/// `trusted.` attributes, the last of each, are for root of the machine.
fn allowed<T, const COUNT: usize>(formats: [T; COUNT]) -> impl Iterator<Item = T> {
    let count = COUNT - usize::from(machine::root().is_some());
    formats.into_iter().take(count)
}

fn names(path: &Path) -> Vec<OsString> {
    let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

fn is_whiteout(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|stat| stat.file_type().is_char_device() && stat.rdev() == 0)
}

#[test]
fn every_whiteout_format_hides_a_file_below() {
    needs!(machine::mounts());
    for (format, mark) in allowed(MARKS) {
        let lower = [file("gone", "x"), file("stays", "y"), dir("d"), file("d/gone", "x"), file("d/stays", "y")];
        let layers = Layers::new(&[&[mark("gone"), dir("d"), mark("d/gone")], &lower]);
        let mount = LaminaMount::new(&layers);
        assert_eq!(names(mount.path()), ["d", "stays"], "{format}");
        assert_eq!(names(&mount.join("d")), ["stays"], "{format}");
        assert!(!mount.join("d/gone").exists() && !mount.join("gone").exists(), "{format}");
    }
}

/// fuse-overlayfs 2.0 forgot `.wh.<dir>` of a middle layer for what lay in the directory: a deleted and recreated one showed its old files.
#[test]
fn every_whiteout_format_in_a_middle_layer_hides_a_whole_directory() {
    needs!(machine::mounts());
    for (format, mark) in allowed(MARKS) {
        let top = [dir("d"), file("d/new", "n")];
        let bottom = [dir("d"), file("d/old", "o"), dir("d/sub"), file("d/sub/old", "o")];
        let layers = Layers::new(&[&top, &[mark("d")], &bottom]);
        let mut mount = LaminaMount::new(&layers);
        assert_eq!(names(&mount.join("d")), ["new"], "{format}");
        assert!(!mount.join("d/old").exists() && !mount.join("d/sub/old").exists(), "{format}");
        fs::create_dir(mount.join("d/sub")).unwrap();
        mount.remount();
        assert_eq!(names(&mount.join("d")), ["new", "sub"], "{format}");
        assert!(names(&mount.join("d/sub")).is_empty(), "{format}: the old directory shows through the new one");
    }
}

#[test]
fn every_opaque_format_hides_what_is_below_in_every_layer() {
    needs!(machine::mounts());
    for opaque in allowed(OPAQUES) {
        for position in 0..2 {
            let marked = [dir("d").opaque(opaque), file("d/new", "n")];
            let plain = [dir("d"), file("d/other", "p")];
            let bottom = [dir("d"), file("d/old", "o")];
            let lowers: [&[Entry]; 3] =
                if position == 0 { [&marked, &plain, &bottom] } else { [&plain, &marked, &bottom] };
            let layers = Layers::new(&lowers);
            let mount = LaminaMount::new(&layers);
            let expected: &[&str] = if position == 0 { &["new"] } else { &["new", "other"] };
            assert_eq!(names(&mount.join("d")), expected, "{opaque:?} in layer {position}");
            assert!(!mount.join("d/old").exists(), "{opaque:?} in layer {position}");
        }
    }
}

#[test]
fn every_format_works_in_the_upper_layer_too() {
    needs!(machine::mounts());
    for (format, mark) in allowed(MARKS) {
        for opaque in allowed(OPAQUES) {
            let layers = Layers::new(&[&[file("gone", "x"), dir("d"), file("d/old", "o")]]);
            support::literal::plant(&layers.upper, &[mark("gone"), dir("d").opaque(opaque), file("d/new", "n")]);
            let mount = LaminaMount::new(&layers);
            assert_eq!(names(mount.path()), ["d"], "{format}");
            assert_eq!(names(&mount.join("d")), ["new"], "{opaque:?}");
            fs::write(mount.join("gone"), "back").unwrap();
            assert_eq!(fs::read(mount.join("gone")).unwrap(), b"back", "{format}");
        }
    }
}

/// The names and attributes of the marks are the format's, not the user's.
#[test]
fn marks_themselves_do_not_show() {
    needs!(machine::mounts());
    let layers = Layers::new(&[
        &[dot_whiteout("gone"), dir("d").opaque(Opaque::File), dir("e").opaque(Opaque::User)],
        &[file("gone", "")],
    ]);
    let mount = LaminaMount::new(&layers);
    let tree = Tree::read(mount.path());
    assert_eq!(tree.paths(), ["d", "e"]);
    assert!(tree.0["e"].xattrs.is_empty(), "{:?}", tree.0["e"].xattrs);
    for name in [".wh.gone", ".wh..wh..opq", "d/.wh..wh..opq"] {
        assert!(!mount.join(name).exists(), "{name} shows");
    }
}

#[test]
fn unlink_of_a_lower_file_writes_a_character_device() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("f", ""), dir("d"), file("d/f", ""), dir("e")]]);
    let mount = LaminaMount::new(&layers);
    fs::remove_file(mount.join("f")).unwrap();
    fs::remove_file(mount.join("d/f")).unwrap();
    fs::remove_dir(mount.join("e")).unwrap();
    drop(mount);
    assert_eq!(layers.upper_tree().paths(), ["d", "d/f", "e", "f"]);
    for name in ["f", "d/f", "e"] {
        assert!(is_whiteout(&layers.upper.join(name)), "{name}");
    }
}

/// fuse-overlayfs left `.wh..wh..opq` and a device `.wh..opq` in each new directory, apptainer/singularity#3176.
#[test]
fn directory_made_over_a_whiteout_is_opaque_by_attribute_only() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[dir("d"), file("d/old", "")]]);
    let mut mount = LaminaMount::new(&layers);
    fs::remove_dir_all(mount.join("d")).unwrap();
    fs::create_dir(mount.join("d")).unwrap();
    fs::create_dir(mount.join("fresh")).unwrap();
    mount.remount();
    assert!(names(&mount.join("d")).is_empty());
    drop(mount);
    assert_eq!(layers.upper_tree().paths(), ["d", "fresh"], "nothing but the directories");
    assert_eq!(xattr(&layers.upper.join("d"), "user.overlay.opaque"), Some(b"y".to_vec()));
    assert_eq!(xattr(&layers.upper.join("fresh"), "user.overlay.opaque"), None, "nothing below: no mark");
}

/// fuse-overlayfs #306 and #309: whiteouts where nothing is below make an upper that the kernel's overlayfs shows wrongly.
#[test]
fn nothing_below_leaves_no_whiteout() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[dir("d"), file("d/old", "")]]);
    let mount = LaminaMount::new(&layers);
    fs::write(mount.join("new"), "").unwrap();
    fs::rename(mount.join("new"), mount.join("newer")).unwrap();
    fs::remove_file(mount.join("newer")).unwrap();
    fs::remove_dir_all(mount.join("d")).unwrap();
    fs::create_dir(mount.join("d")).unwrap();
    fs::write(mount.join("d/old"), "").unwrap();
    fs::rename(mount.join("d/old"), mount.join("d/x")).unwrap();
    fs::remove_file(mount.join("d/x")).unwrap();
    drop(mount);
    assert_eq!(layers.upper_tree().paths(), ["d"]);
}

/// rmdir of a directory that holds only whiteouts, of any format, in any layer.
#[test]
fn directory_with_nothing_but_whiteouts_is_empty() {
    needs!(machine::mounts());
    for (format, mark) in allowed(MARKS) {
        let layers = Layers::new(&[&[dir("d"), mark("d/a")], &[dir("d"), file("d/a", ""), file("d/b", "")]]);
        let mut mount = LaminaMount::new(&layers);
        assert!(fs::remove_dir(mount.join("d")).is_err(), "{format}: d/b shows");
        fs::remove_file(mount.join("d/b")).unwrap();
        fs::remove_dir(mount.join("d")).unwrap_or_else(|error| panic!("{format}: {error}"));
        mount.remount();
        assert!(names(mount.path()).is_empty(), "{format}");
        layers.assert_lowers_untouched();
    }
}

/// fuse-overlayfs #351: `.wh.` took four bytes of each name away.
#[test]
fn names_of_255_bytes_work() {
    needs!(machine::mounts());
    let (long, other) = ("x".repeat(255), "y".repeat(255));
    let layers = Layers::new(&[&[file(&long, "lower")]]);
    let mut mount = LaminaMount::new(&layers);
    fs::rename(mount.join(&long), mount.join(&other)).unwrap();
    fs::write(mount.join(&long), "new").unwrap();
    mount.remount();
    assert_eq!(names(mount.path()), [long.as_str(), other.as_str()]);
    fs::remove_file(mount.join(&long)).unwrap();
    mount.remount();
    assert_eq!(names(mount.path()), [other.as_str()]);
    let too_long = fs::write(mount.join(&"z".repeat(256)), "").unwrap_err();
    assert_eq!(too_long.raw_os_error(), Some(libc::ENAMETOOLONG));
    assert_eq!(nix::sys::statvfs::statvfs(mount.path()).unwrap().name_max(), 255);
}

#[test]
fn environment_asks_for_dot_whiteouts() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("f", ""), dir("d"), file("d/old", "")]]);
    let mut mount = Lamina::on(&layers).env("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT", "1").mount();
    fs::remove_file(mount.join("f")).unwrap();
    fs::remove_dir_all(mount.join("d")).unwrap();
    fs::create_dir(mount.join("d")).unwrap();
    mount.remount();
    assert_eq!(names(mount.path()), ["d"]);
    assert!(names(&mount.join("d")).is_empty());
    drop(mount);
    let upper = names(&layers.upper);
    assert!(upper.contains(&".wh.f".into()) && !upper.contains(&"f".into()), "{upper:?}");
    assert!(!upper.iter().any(|name| is_whiteout(&layers.upper.join(name))), "a device in spite of the variable");
}

/// A name that means a whiteout in some layer cannot be a file of the user's.
#[test]
fn name_of_a_mark_is_refused() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("f", "")]]);
    let mount = LaminaMount::new(&layers);
    for name in [".wh.f", ".wh..wh..opq"] {
        assert!(fs::write(mount.join(name), "").is_err(), "{name} was created");
        assert!(fs::rename(mount.join("f"), mount.join(name)).is_err(), "f became {name}");
    }
    assert_eq!(names(mount.path()), ["f"]);
}
