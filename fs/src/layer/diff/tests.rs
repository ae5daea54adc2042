//! A directory, its archive, and the directory that comes of it.

use super::*;
use crate::layer::apply::{ApplyOptions, apply};
use crate::layer::override_stat::OverrideStat;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

fn archive(dir: &Path) -> Vec<u8> {
    let root = open::open_root(dir).expect("open");
    let mut bytes = Vec::new();
    diff(root.as_fd(), OverrideStat::Off, &Mountpoints::default(), &mut bytes).expect("it is written");
    bytes
}

fn applied(bytes: &[u8], owners: OverrideStat) -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("temporary directory");
    let root = open::open_root(home.path()).expect("open");
    apply(root.as_fd(), bytes, &ApplyOptions { owners, ..ApplyOptions::default() }).expect("it applies");
    home
}

fn names(bytes: &[u8]) -> Vec<String> {
    let mut archive = crate::layer::archive::Archive::new(bytes);
    std::iter::from_fn(|| archive.next_entry().expect("read"))
        .map(|entry| String::from_utf8_lossy(&entry.path).into_owned())
        .collect()
}

fn plant() -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("temporary directory");
    let at = |path: &str| home.path().join(path);
    std::fs::create_dir_all(at("d/sub")).expect("mkdir");
    std::fs::write(at("d/b"), "content").expect("write");
    std::fs::hard_link(at("d/b"), at("d/a")).expect("link");
    std::fs::hard_link(at("d/b"), at("d/sub/c")).expect("link");
    symlink("../gone", at("d/link")).expect("symlink");
    std::fs::write(at(".wh.dot"), "").expect("write");
    std::fs::write(at("d/sub/.wh..wh..opq"), "").expect("write");
    std::fs::set_permissions(at("d/sub"), std::fs::Permissions::from_mode(0o2750)).expect("chmod");
    let sparse = std::fs::File::create(at("sparse")).expect("create");
    sparse.set_len(3 << 20).expect("set_len");
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).expect("bind");
    home
}

#[test]
fn archive_of_the_applied_archive_is_the_same() {
    let upper = plant();
    let first = archive(upper.path());
    assert_eq!(first, archive(upper.path()));
    for owners in [OverrideStat::Off, OverrideStat::User] {
        let copy = applied(&first, owners);
        assert!(first == archive(copy.path()), "{owners:?}");
    }
}

#[test]
fn names_are_sorted_and_marks_become_whiteouts() {
    let upper = plant();
    let expected = ["./", "d/", "d/a", "d/b", "d/link", "d/sub/", "d/sub/.wh..wh..opq", "d/sub/c", ".wh.dot", "sparse"];
    assert_eq!(names(&archive(upper.path())), expected);
}

#[test]
fn marks_by_attribute_are_written_as_names() {
    let upper = tempfile::tempdir().expect("temporary directory");
    std::fs::create_dir(upper.path().join("opaque")).expect("mkdir");
    std::fs::write(upper.path().join("gone"), "").expect("write");
    let set = |path: &str, name: &str, value: &[u8]| {
        let file = std::fs::File::open(upper.path().join(path)).expect("open");
        xattr::set(file.as_fd(), OsStr::new(name), value, 0).expect("setxattr");
    };
    set("opaque", "user.overlay.opaque", b"y");
    set(".", "user.overlay.opaque", b"x");
    set("gone", "user.overlay.whiteout", b"");
    assert_eq!(names(&archive(upper.path())), ["./", ".wh.gone", "opaque/", "opaque/.wh..wh..opq"]);
}

#[test]
fn content_that_is_elsewhere_is_refused() {
    let upper = tempfile::tempdir().expect("temporary directory");
    std::fs::create_dir(upper.path().join("moved")).expect("mkdir");
    let dir = std::fs::File::open(upper.path().join("moved")).expect("open");
    xattr::set(dir.as_fd(), OsStr::new("user.overlay.redirect"), b"/was", 0).expect("setxattr");
    let root = open::open_root(upper.path()).expect("open");
    let error = diff(root.as_fd(), OverrideStat::Off, &Mountpoints::default(), std::io::sink())
        .expect_err("it is refused")
        .to_string();
    assert!(error.contains("/moved") && error.contains("redirect_dir"), "{error}");
}

#[test]
fn overridden_owners_become_owners() {
    let (uid, gid) = (70_000, 3_000_000);
    let mtime = Timestamp { seconds: 5, nanoseconds: 0 };
    let attributes =
        Attributes { mode: 0o4755, uid, gid, mtime, atime: None, xattrs: vec![(b"user.x".to_vec(), b"v".to_vec())] };
    let mut writer = ArchiveWriter::new(Vec::new());
    let kind = Kind::Special { format: libc::S_IFBLK, rdev: rustix::fs::makedev(8, 1) };
    for member in
        [Member::new(b"./".to_vec(), Kind::Dir, attributes.clone()), Member::new(b"b".to_vec(), kind, attributes)]
    {
        writer.entry(&member).expect("header");
    }
    let bytes = writer.finish().expect("finish");
    let upper = applied(&bytes, OverrideStat::User);
    assert!(archive(upper.path()) == bytes);
}

/// Found when a container of a user without privilege was to be committed: its upper directory is one that nobody has changed, so the root
/// has no override and the files have.
#[test]
fn owners_are_read_from_attributes_where_the_caller_says_so() {
    let home = tempfile::tempdir().expect("temporary directory");
    let file = home.path().join("file");
    std::fs::write(&file, "x").expect("write");
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&file, "user.containers.override_stat", b"7:8:0640:file", flags).expect("setxattr");
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o751)).expect("chmod");
    let root = open::open_root(home.path()).expect("open");
    let mut bytes = Vec::new();
    diff(root.as_fd(), OverrideStat::User, &Mountpoints::default(), &mut bytes).expect("it is written");
    let mut archive = crate::layer::archive::Archive::new(bytes.as_slice());
    let mut owners = Vec::new();
    while let Some(entry) = archive.next_entry().expect("read") {
        owners.push((entry.path, entry.attributes.uid, entry.attributes.gid, entry.attributes.mode));
    }
    assert_eq!(owners, [(b"./".to_vec(), 0, 0, 0o751), (b"file".to_vec(), 7, 8, 0o640)]);
}
