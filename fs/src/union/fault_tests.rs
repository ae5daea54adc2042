//! A failing system call, at any step of a change, leaves the tree as it was.
//!
//! Every test runs one change again and again, failing the first, the second, ... changing call of it, with every errno
//! that a disk gives, until the change gets through unharmed.

use super::{Caller, Changes, Config, InodeNumber, OverrideStat, RenameFlags, Union, UpperConfig, XattrPolicy};
use crate::error::Result;
use crate::sys::fault;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const ERRNOS: [i32; 4] = [libc::ENOSPC, libc::EDQUOT, libc::EIO, libc::EMFILE];
/// No change makes more calls than this.
const CALLS_MAX: u32 = 200;
const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022 };

fn caller() -> Caller {
    Caller { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw(), ..CALLER }
}

fn build(base: &Path) {
    for dir in ["lower/d/sub", "lower/empty", "upper", "work"] {
        fs::create_dir_all(base.join(dir)).expect("makes a directory");
    }
    for (file, content) in
        [("lower/d/a", "lower a"), ("lower/d/b", "lower b"), ("lower/h1", "linked"), ("lower/top", "top")]
    {
        fs::write(base.join(file), content).expect("writes a file");
    }
    fs::hard_link(base.join("lower/h1"), base.join("lower/d/h2")).expect("links");
    std::os::unix::fs::symlink("target", base.join("lower/s")).expect("links");
}

fn config(base: &Path) -> Config {
    let upper = UpperConfig { upper: base.join("upper"), work: base.join("work") };
    Config { upper: Some(upper), ..Config::new(vec![base.join("lower")]) }
}

fn open(base: &Path, dot_whiteouts: bool) -> Union {
    Union::new(Config { force_dot_whiteouts: dot_whiteouts, ..config(base) }).expect("opens")
}

fn find(union: &Union, path: &str) -> InodeNumber {
    path.split('/').fold(InodeNumber::ROOT, |dir, name| {
        union.lookup(dir, OsStr::new(name)).expect("looks up").unwrap_or_else(|| panic!("{path} exists")).number
    })
}

/// What a user sees: a line for each name.
fn seen(union: &Union, dir: InodeNumber, path: &str, lines: &mut Vec<String>) {
    let listing = union.read_dir(dir, 0).expect("lists");
    for entry in &listing.entries[2..] {
        let path = format!("{path}/{}", entry.name.display());
        let attributes =
            union.lookup(dir, &entry.name).expect("looks up").unwrap_or_else(|| panic!("{path} is listed"));
        let mut content = vec![0; 64];
        let data = match attributes.mode & libc::S_IFMT {
            libc::S_IFREG => {
                let length = union.read(attributes.number, 0, &mut content).expect("reads");
                String::from_utf8_lossy(&content[..length]).into_owned()
            }
            libc::S_IFLNK => String::from_utf8_lossy(&union.read_link(attributes.number).expect("reads")).into_owned(),
            _ => String::new(),
        };
        lines.push(format!(
            "{path} ino {} mode {:o} links {} owner {}:{} mtime {:?} xattrs {:?} {data:?}",
            attributes.st_ino,
            attributes.mode,
            // A directory shows 1 from the moment it is merged from two layers, which nothing visible depends on.
            if attributes.mode & libc::S_IFMT == libc::S_IFDIR { 1 } else { attributes.nlink },
            attributes.uid,
            attributes.gid,
            attributes.mtime,
            union.list_xattrs(attributes.number).expect("lists"),
        ));
        if attributes.mode & libc::S_IFMT == libc::S_IFDIR {
            seen(union, attributes.number, &path, lines);
        }
        union.forget(attributes.number, 1);
    }
}

fn tree(union: &Union) -> Vec<String> {
    let mut lines = Vec::new();
    seen(union, InodeNumber::ROOT, "", &mut lines);
    lines.sort();
    lines
}

/// Fails each changing call of `change` in turn. `before` runs unharmed.
fn survives(before: impl Fn(&Union), change: impl Fn(&Union) -> Result<()>) {
    for dot_whiteouts in [false, true] {
        for errno in ERRNOS {
            let reached =
                (0..CALLS_MAX).take_while(|nth| fails_cleanly(&before, &change, dot_whiteouts, *nth, errno)).count();
            assert!(reached > 0, "no changing call was reached");
        }
    }
}

/// Whether the fault was reached.
fn fails_cleanly(
    before: impl Fn(&Union),
    change: impl Fn(&Union) -> Result<()>,
    dot_whiteouts: bool,
    nth: u32,
    errno: i32,
) -> bool {
    let base = tempfile::tempdir().expect("makes a directory");
    build(base.path());
    let union = open(base.path(), dot_whiteouts);
    before(&union);
    let expected = tree(&union);
    let armed = fault::arm(nth, errno);
    let result = change(&union);
    let fired = armed.fired();
    drop(armed);
    match result {
        // A step after publication: the change has happened, and says so.
        Ok(()) => {
            assert!(!fired || tree(&union) != expected, "call {nth}: errno {errno} was swallowed and nothing changed")
        }
        Err(error) => {
            assert!(fired, "call {nth}: {error} without a fault");
            assert_eq!(tree(&union), expected, "call {nth}: errno {errno} ({error}) left a trace");
            drop(union);
            let again = open(base.path(), dot_whiteouts);
            assert_eq!(tree(&again), expected, "call {nth}: errno {errno} ({error}) left a trace on disk");
            let left = fs::read_dir(base.path().join("work/work")).expect("lists").count();
            assert_eq!(left, 0, "call {nth}: a temporary file is left");
            change(&again).expect("works without a fault");
        }
    }
    fired
}

fn nothing(_: &Union) {}

fn name(text: &str) -> &OsStr {
    OsStr::from_bytes(text.as_bytes())
}

/// Fails each opening of `change` in turn for want of a descriptor. Some are closed then, and what was refused is tried again: so the change
/// goes through, once, and shows what it shows without a fault.
fn gets_a_descriptor(change: impl Fn(&Union) -> Result<()>) {
    for override_stat in [OverrideStat::Off, OverrideStat::User] {
        let run = |nth: u32| {
            let base = tempfile::tempdir().expect("makes a directory");
            build(base.path());
            let xattrs = XattrPolicy { enabled: true, override_stat };
            let union = Union::new(Config { xattrs, ..config(base.path()) }).expect("opens");
            let armed = fault::arm_open(nth);
            let result = change(&union);
            let fired = armed.fired();
            drop(armed);
            result.unwrap_or_else(|error| panic!("{override_stat:?}, opening {nth}: {error}"));
            fired
        };
        let reached = (0..CALLS_MAX).take_while(|nth| run(*nth)).count();
        assert!(reached > 0, "no opening was reached");
    }
}

#[test]
fn create_that_met_the_descriptor_limit_is_done_once() {
    gets_a_descriptor(|union| union.create(&caller(), find(union, "d"), name("new"), 0o644).map(drop));
}

#[test]
fn mkdir_that_met_the_descriptor_limit_is_done_once() {
    gets_a_descriptor(|union| union.make_dir(&caller(), find(union, "d"), name("new"), 0o755).map(drop));
}

#[test]
fn symlink_that_met_the_descriptor_limit_is_done_once() {
    gets_a_descriptor(|union| union.symlink(&caller(), find(union, "d"), name("new"), name("to")).map(drop));
}

#[test]
fn mknod_that_met_the_descriptor_limit_is_done_once() {
    gets_a_descriptor(|union| {
        union.make_node(&caller(), find(union, "d"), name("new"), libc::S_IFIFO | 0o600, 0).map(drop)
    });
}

#[test]
fn link_that_met_the_descriptor_limit_is_done_once() {
    gets_a_descriptor(|union| union.link(find(union, "h1"), find(union, "d"), name("new")).map(drop));
}

#[test]
fn unlink_that_met_the_descriptor_limit_is_done_once() {
    gets_a_descriptor(|union| union.remove_file(find(union, "d"), name("a")));
}

#[test]
fn rename_that_met_the_descriptor_limit_is_done_once() {
    gets_a_descriptor(|union| {
        union.rename(InodeNumber::ROOT, name("top"), find(union, "d"), name("b"), RenameFlags::default())
    });
}

#[test]
fn write_to_a_lower_file_in_a_lower_directory() {
    survives(nothing, |union| union.write(find(union, "d/a"), 3, b"new", false).map(drop));
}

#[test]
fn truncate_of_a_lower_file() {
    survives(nothing, |union| {
        let changes = Changes { size: Some(0), ..Changes::default() };
        union.set_attributes(&caller(), find(union, "d/a"), &changes).map(drop)
    });
}

#[test]
fn chmod_of_a_lower_directory() {
    survives(nothing, |union| {
        let changes = Changes { mode: Some(0o711), ..Changes::default() };
        union.set_attributes(&caller(), find(union, "d/sub"), &changes).map(drop)
    });
}

#[test]
fn write_to_a_lower_hard_link() {
    survives(nothing, |union| union.write(find(union, "h1"), 0, b"LINKED", false).map(drop));
}

#[test]
fn create_in_a_lower_directory() {
    survives(nothing, |union| union.create(&caller(), find(union, "d"), name("new"), 0o644).map(drop));
}

#[test]
fn create_over_a_whiteout() {
    survives(
        |union| union.remove_file(InodeNumber::ROOT, name("top")).expect("removes"),
        |union| union.create(&caller(), InodeNumber::ROOT, name("top"), 0o644).map(drop),
    );
}

#[test]
fn mkdir_over_a_whiteout() {
    survives(
        |union| union.remove_dir(InodeNumber::ROOT, name("empty")).expect("removes"),
        |union| union.make_dir(&caller(), InodeNumber::ROOT, name("empty"), 0o755).map(drop),
    );
}

#[test]
fn symlink_in_a_lower_directory() {
    survives(nothing, |union| union.symlink(&caller(), find(union, "d"), name("l"), name("to")).map(drop));
}

#[test]
fn link_of_a_lower_file() {
    survives(nothing, |union| union.link(find(union, "top"), find(union, "d"), name("top2")).map(drop));
}

#[test]
fn unlink_of_a_lower_file() {
    survives(nothing, |union| union.remove_file(find(union, "d"), name("a")));
}

#[test]
fn unlink_of_a_changed_lower_file() {
    survives(
        |union| assert_eq!(union.write(find(union, "d/a"), 0, b"x", false), Ok(1)),
        |union| union.remove_file(find(union, "d"), name("a")),
    );
}

#[test]
fn rmdir_of_a_merged_directory() {
    survives(
        |union| {
            let dir = find(union, "empty");
            union.create(&caller(), dir, name("x"), 0o644).expect("creates");
            union.remove_file(dir, name("x")).expect("removes");
        },
        |union| union.remove_dir(InodeNumber::ROOT, name("empty")),
    );
}

#[test]
fn rename_of_a_lower_file_over_a_lower_file() {
    survives(nothing, |union| {
        union.rename(InodeNumber::ROOT, name("top"), find(union, "d"), name("b"), RenameFlags::default())
    });
}

#[test]
fn exchange_of_two_lower_files() {
    let flags = RenameFlags { exchange: true, no_replace: false };
    survives(nothing, |union| union.rename(InodeNumber::ROOT, name("top"), find(union, "d"), name("b"), flags));
}

#[test]
fn rename_of_a_new_directory_over_a_whiteout() {
    survives(
        |union| {
            union.make_dir(&caller(), InodeNumber::ROOT, name("n"), 0o755).expect("makes");
            union.remove_file(InodeNumber::ROOT, name("top")).expect("removes");
        },
        |union| union.rename(InodeNumber::ROOT, name("n"), InodeNumber::ROOT, name("top"), RenameFlags::default()),
    );
}

#[test]
fn rename_of_a_new_directory_over_an_emptied_one() {
    survives(
        |union| {
            union.make_dir(&caller(), InodeNumber::ROOT, name("n"), 0o755).expect("makes");
            let dir = find(union, "d");
            for file in ["a", "b", "h2"] {
                union.remove_file(dir, name(file)).expect("removes");
            }
            union.remove_dir(dir, name("sub")).expect("removes");
        },
        |union| union.rename(InodeNumber::ROOT, name("n"), InodeNumber::ROOT, name("d"), RenameFlags::default()),
    );
}

#[test]
fn xattr_of_a_lower_file() {
    survives(nothing, |union| union.set_xattr(&caller(), find(union, "d/a"), name("user.x"), b"1", 0));
}

#[test]
fn times_of_a_lower_symlink() {
    survives(nothing, |union| {
        let mtime = super::TimeChange::At(super::Timestamp { seconds: 5, nanoseconds: 6 });
        let changes = Changes { mtime, ..Changes::default() };
        union.set_attributes(&caller(), find(union, "s"), &changes).map(drop)
    });
}
