//! What a changeset becomes, entry by entry, in a temporary directory.

use super::*;
use crate::layer::archive::{ArchiveWriter, Attributes};
use crate::sys::stat::{Stat, Timestamp};
use crate::sys::{stat, xattr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// An archive under construction.
pub struct Tar(ArchiveWriter<Vec<u8>>);

pub fn attributes(mode: u32) -> Attributes {
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mtime = Timestamp { seconds: 1_000_000, nanoseconds: 5 };
    Attributes { mode, uid: own.0, gid: own.1, mtime, atime: None, xattrs: Vec::new() }
}

impl Tar {
    pub fn new() -> Tar {
        Tar(ArchiveWriter::new(Vec::new()))
    }

    pub fn entry(mut self, path: &str, kind: Kind, attributes: Attributes) -> Tar {
        self.0.entry(&Entry::new(path.into(), kind, attributes)).expect("header");
        self
    }

    pub fn dir(self, path: &str) -> Tar {
        self.entry(path, Kind::Dir, attributes(0o755))
    }

    pub fn file(mut self, path: &str, data: &[u8]) -> Tar {
        self = self.entry(path, Kind::File { size: data.len() as u64, pieces: None }, attributes(0o644));
        self.0.data(data).expect("data");
        self
    }

    pub fn symlink(self, path: &str, target: &str) -> Tar {
        self.entry(path, Kind::Symlink { target: target.into() }, attributes(0o777))
    }

    pub fn link(self, path: &str, target: &str) -> Tar {
        self.entry(path, Kind::HardLink { target: target.into() }, attributes(0o644))
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0.finish().expect("finish")
    }
}

/// A directory to write into.
pub struct Target {
    pub home: tempfile::TempDir,
    root: OwnedFd,
}

impl Target {
    pub fn new() -> Target {
        let home = tempfile::tempdir().expect("temporary directory");
        let root = crate::sys::open::open_root(home.path()).expect("open");
        Target { home, root }
    }

    pub fn apply(&self, tar: &[u8]) -> Result<Applied, ApplyError> {
        apply(self.root.as_fd(), tar, &ApplyOptions::default())
    }

    pub fn written(tar: Tar) -> (Target, Applied) {
        let target = Target::new();
        let applied = target.apply(&tar.bytes()).expect("it applies");
        (target, applied)
    }

    pub fn path(&self, path: &str) -> std::path::PathBuf {
        self.home.path().join(path)
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn stat(&self, path: &str) -> Option<Stat> {
        let path = Path::new(path);
        let parent = self.home.path().join(path.parent().unwrap_or(Path::new("")));
        let dir = crate::sys::open::open_root(&parent).ok()?;
        stat::stat_at(dir.as_fd(), path.file_name().expect("a name")).expect("stat")
    }

    fn xattr(&self, path: &str, name: &str) -> Option<Vec<u8>> {
        let dir = std::fs::File::open(self.path(path)).expect("open");
        xattr::value(dir.as_fd(), OsStr::new(name)).expect("getxattr")
    }

    fn is_opaque(&self, path: &str) -> bool {
        let marked = |name| self.xattr(path, name).as_deref() == Some(b"y");
        marked("trusted.overlay.opaque")
            || marked("user.overlay.opaque")
            || self.path(path).join(".wh..wh..opq").exists()
    }
}

#[test]
fn files_links_and_times_are_as_the_archive_says() {
    let dated = Attributes { mtime: Timestamp { seconds: -7, nanoseconds: 1 }, ..attributes(0o4711) };
    let tar = Tar::new()
        .dir("d/")
        .file("d/a", b"one")
        .entry("d/set", Kind::File { size: 0, pieces: None }, dated)
        .symlink("d/s", "../../away")
        .link("d/h", "./d/a")
        .link("top", "/d/a")
        .entry("p", Kind::Special { format: libc::S_IFIFO, rdev: 0 }, attributes(0o622));
    let (target, applied) = Target::written(tar);
    assert_eq!(target.read("top"), "one");
    assert_eq!(target.stat("d/a").map(|found| found.nlink), Some(3));
    assert_eq!(std::fs::read_link(target.path("d/s")).expect("link"), Path::new("../../away"));
    let set = target.stat("d/set").expect("it exists");
    assert_eq!((set.mode & 0o7777, set.mtime), (0o4711, Timestamp { seconds: -7, nanoseconds: 1 }));
    for path in ["d", "d/a", "d/s", "p"] {
        assert_eq!(target.stat(path).map(|found| found.mtime), Some(attributes(0).mtime), "{path}");
    }
    assert_eq!(target.stat("p").map(|found| found.mode), Some(libc::S_IFIFO | 0o622));
    assert_eq!(applied.usage, Usage { bytes: 3 * 4096, inodes: 6 });
    assert_eq!(applied.implicit, [b"".to_vec()]);
}

#[test]
fn directory_that_is_entered_again_keeps_its_time() {
    let tar = Tar::new().dir("a").dir("b").file("a/x", b"").file("b/y", b"").file("a/z", b"");
    let (target, _) = Target::written(tar);
    for path in ["a", "b"] {
        assert_eq!(target.stat(path).map(|found| found.mtime), Some(attributes(0).mtime), "{path}");
    }
}

#[test]
fn umask_takes_nothing_from_modes() {
    let open = attributes(0o777);
    let tar = Tar::new().entry("f", Kind::File { size: 0, pieces: None }, open.clone()).entry("d", Kind::Dir, open);
    let (target, _) = Target::written(tar);
    for path in ["f", "d"] {
        assert_eq!(target.stat(path).map(|found| found.mode & 0o7777), Some(0o777), "{path}");
    }
}

#[test]
fn set_group_id_directory_hands_nothing_down() {
    let tar = Tar::new().entry("d", Kind::Dir, attributes(0o2775)).dir("e").dir("d/in").file("d/f", b"");
    let (target, _) = Target::written(tar);
    assert_eq!(target.stat("d").map(|found| found.mode & 0o7777), Some(0o2775));
    assert_eq!(target.stat("d/in").map(|found| found.mode & 0o7777), Some(0o755));
}

#[test]
fn whiteouts_become_marks() {
    let tar =
        Tar::new().file("d/.wh.gone", b"").file("d/.wh..wh..opq", b"").file("d/.wh..wh.plnk", b"").file(".wh.top", b"");
    let (target, applied) = Target::written(tar);
    for (device, dot) in [("d/gone", "d/.wh.gone"), ("top", ".wh.top")] {
        let marked = target.stat(device).is_some_and(|found| found.is_whiteout_device()) || target.stat(dot).is_some();
        assert!(marked, "{device}");
    }
    assert!(target.is_opaque("d"));
    assert!(target.stat("d/.wh..wh.plnk").is_none());
    assert_eq!(applied.implicit, [b"".to_vec(), b"d".to_vec()]);
}

#[test]
fn whiteout_beside_what_the_layer_has_itself() {
    let tar = Tar::new().file("a/x", b"x").file(".wh.a", b"").file("f", b"f").file(".wh.f", b"");
    let tar = tar.file(".wh.b", b"").file("b/y", b"y").file(".wh.g", b"").file("g", b"g");
    let (target, _) = Target::written(tar);
    assert_eq!([target.read("a/x"), target.read("f"), target.read("b/y"), target.read("g")], ["x", "f", "y", "g"]);
    assert!(target.is_opaque("a") && target.is_opaque("b"));
}

#[test]
fn last_entry_of_a_name_counts() {
    let tar = Tar::new().file("f", b"long first").link("other", "f").file("f", b"two");
    let tar = tar.dir("d").file("d/in", b"12").file("d", b"now a file").symlink("s", "d").dir("s").file("s/x", b"");
    let (target, applied) = Target::written(tar);
    assert_eq!([target.read("f"), target.read("other"), target.read("d")], ["two", "long first", "now a file"]);
    assert!(target.stat("s").is_some_and(|found| found.is_dir()));
    assert_eq!(applied.usage, Usage { bytes: 5 * 4096, inodes: 6 });
}

#[test]
fn holes_are_not_written_and_not_counted() {
    let mut data = vec![0; 1 << 20];
    data[500_000] = 1;
    let (target, applied) = Target::written(Tar::new().file("f", &data).file("zeros", &[0; 300_000]));
    assert_eq!(std::fs::read(target.path("f")).expect("read"), data);
    assert_eq!(target.stat("zeros").map(|found| found.size), Some(300_000));
    let zeros = target.stat("zeros").expect("it exists").blocks * 512;
    assert!(zeros < 100_000 && applied.usage.bytes < 300_000, "{zeros} {applied:?}");
}

#[test]
fn sparse_formats_of_gnu_tar_are_read() {
    let source = tempfile::tempdir().expect("temporary directory");
    let file = std::fs::File::create(source.path().join("sparse")).expect("create");
    file.set_len(8 << 20).expect("set_len");
    // More pieces than one header of the old format holds.
    for at in 0..40 {
        file.write_all_at(&[b'a' + at as u8; 4096], at * 150_000 / 4096 * 4096).expect("write");
    }
    let expected = std::fs::read(source.path().join("sparse")).expect("read");
    for format in ["gnu", "posix --sparse-version=0.0", "posix --sparse-version=0.1", "posix --sparse-version=1.0"] {
        let command = format!("tar --format={format} --sparse -C {} -c sparse", source.path().display());
        let output = std::process::Command::new("sh").args(["-c", &command]).output().expect("tar runs");
        let target = Target::new();
        assert!(output.stdout.len() < 2 << 20, "{format}: the archive is sparse");
        target.apply(&output.stdout).unwrap_or_else(|error| panic!("{format}: {error}"));
        assert!(std::fs::read(target.path("sparse")).expect("read") == expected, "{format}");
    }
}

#[test]
fn long_names_of_gnu_tar_are_read() {
    let source = tempfile::tempdir().expect("temporary directory");
    let deep = ["d".repeat(200), "e".repeat(200)].join("/");
    std::fs::create_dir_all(source.path().join(&deep)).expect("mkdir");
    std::os::unix::fs::symlink("t".repeat(300), source.path().join(&deep).join("link")).expect("symlink");
    for format in ["gnu", "posix"] {
        let command = format!("tar --format={format} -C {} -c .", source.path().display());
        let output = std::process::Command::new("sh").args(["-c", &command]).output().expect("tar runs");
        let target = Target::new();
        target.apply(&output.stdout).unwrap_or_else(|error| panic!("{format}: {error}"));
        let link = std::fs::read_link(target.path(&deep).join("link")).expect("link");
        assert_eq!(link.as_os_str().as_bytes(), "t".repeat(300).as_bytes(), "{format}");
    }
}

#[test]
fn attributes_are_set_but_marks_of_unions_are_not() {
    let mut dressed = attributes(0o644);
    let xattr = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    dressed.xattrs = vec![
        xattr("user.a", "1\n2"),
        xattr("user.overlay.redirect", "/x"),
        xattr("user.containers.override_stat", "0:0:777"),
    ];
    let (target, applied) = Target::written(Tar::new().entry("f", Kind::File { size: 0, pieces: None }, dressed));
    assert_eq!(target.xattr("f", "user.a").as_deref(), Some(&b"1\n2"[..]));
    assert_eq!((target.xattr("f", "user.overlay.redirect"), applied.xattrs_left_out), (None, 2));
}

#[test]
fn overridden_owners_and_devices_are_kept_in_an_attribute() {
    let foreign = |mode| Attributes { uid: 4000, gid: 5000, ..attributes(mode) };
    let tar = Tar::new()
        .entry("f", Kind::File { size: 0, pieces: None }, foreign(0o4755))
        .entry("c", Kind::Special { format: libc::S_IFCHR, rdev: rustix::fs::makedev(1, 3) }, foreign(0o666))
        .entry("d", Kind::Dir, foreign(0o700))
        .symlink("s", "f");
    let target = Target::new();
    let options = ApplyOptions { owners: OverrideStat::User, ..ApplyOptions::default() };
    apply(target.root.as_fd(), tar.bytes().as_slice(), &options).expect("it applies");
    let value =
        |path| target.xattr(path, "user.containers.override_stat").map(|value| String::from_utf8(value).expect("text"));
    assert_eq!(value("f").as_deref(), Some("4000:5000:4755:file"));
    assert_eq!(value("c").as_deref(), Some("4000:5000:0666:char-1-3"));
    assert_eq!(value("d").as_deref(), Some("4000:5000:0700:dir"));
    assert_eq!(value(".").as_deref(), Some("0:0:0755:dir"));
    assert_eq!(target.stat("f").map(|found| found.mode), Some(libc::S_IFREG | 0o755));
}

#[test]
fn implied_directories_take_the_attributes_of_lower_layers() {
    let (base, _) = Target::written(
        Tar::new()
            .entry("etc", Kind::Dir, attributes(0o711))
            .entry("etc/deep", Kind::Dir, attributes(0o750))
            .entry("hidden", Kind::Dir, attributes(0o700))
            .symlink("bin", "usr/bin"),
    );
    let (middle, _) =
        Target::written(Tar::new().file(".wh.hidden", b"").entry("etc/deep", Kind::Dir, attributes(0o705)));
    let (top, applied) =
        Target::written(Tar::new().file("etc/deep/f", b"").file("hidden/f", b"").file("bin/f", b"").file("new/f", b""));
    let parents = [middle.root.as_fd(), base.root.as_fd()];
    inherit(top.root.as_fd(), &applied.implicit, &parents, OverrideStat::Off).expect("it inherits");
    let mode = |path| top.stat(path).map(|found| found.mode & 0o7777);
    // The middle layer itself only implies /etc: it was not asked to inherit here, and is the topmost to have it.
    assert_eq!([mode("etc"), mode("etc/deep")], [Some(0o755), Some(0o705)]);
    assert_eq!([mode("hidden"), mode("bin"), mode("new")], [Some(0o755); 3]);
    inherit(top.root.as_fd(), &applied.implicit, &[base.root.as_fd()], OverrideStat::Off).expect("it inherits");
    assert_eq!([mode("etc"), mode("hidden")], [Some(0o711), Some(0o700)]);
    assert_eq!(top.stat("etc").map(|found| found.mtime), Some(attributes(0).mtime));
}
