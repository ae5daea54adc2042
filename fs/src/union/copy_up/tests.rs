//! What the first change to a lower file costs in system calls, over an index, in a directory that was copied up before: the
//! rest depends on neither layers nor machine.

use crate::sys::calls;
use crate::union::{
    Caller, Changes, Config, InodeNumber, RenameFlags, TimeChange, Timestamp, Union, UpperConfig, build_index,
};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022 };

/// A union of one layer with files `a`, `b`, ... in a directory `d`, which the change to `a` has brought up. `None` where this
/// process cannot be whom the files are for.
fn mounted(base: &Path) -> Option<(Union, InodeNumber)> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root, who sets marks in trusted.*");
        return None;
    }
    for dir in ["lower/d", "upper", "work"] {
        fs::create_dir_all(base.join(dir)).expect("makes a directory");
    }
    for name in ["a", "b", "c"] {
        fs::write(base.join("lower/d").join(name), [7; 4096]).expect("writes a file");
    }
    let upper = UpperConfig { upper: base.join("upper"), work: base.join("work") };
    let config = Config { sync: false, upper: Some(upper), ..Config::new(vec![base.join("lower")]) };
    let index = base.join("index");
    build_index(&config, &index, |_| {}).expect("builds an index");
    let union = Union::new(Config { index: Some(index), ..config }).expect("opens");
    let dir = find(&union, InodeNumber::ROOT, "d");
    union.write(find(&union, dir, "a"), 4096, b"more", false).expect("writes");
    Some((union, dir))
}

fn find(union: &Union, dir: InodeNumber, name: &str) -> InodeNumber {
    union.lookup(dir, OsStr::new(name)).expect("looks up").expect("is there").number
}

#[track_caller]
fn assert_calls(at_most: u64, what: impl FnOnce()) {
    let before = calls::so_far();
    what();
    let spent = calls::so_far() - before;
    assert!(spent <= at_most, "{spent} calls instead of {at_most}");
}

/// Open the file; make, fill, look at, mark and date the copy; publish it and date its directory: 9, of which a filesystem that
/// shares extents needs one less. Then the write.
#[test]
fn append_to_a_small_lower_file_makes_ten_calls() {
    let base = tempfile::tempdir().expect("makes a directory");
    let Some((union, dir)) = mounted(base.path()) else { return };
    let file = find(&union, dir, "b");
    assert_calls(10, || assert_eq!(union.write(file, 4096, b"more", false), Ok(4)));
    let expected = [&[7; 4096][..], b"more"].concat();
    assert_eq!(fs::read(base.path().join("upper/d/b")).expect("reads"), expected);
}

/// The same copy, the change, and the attributes for the answer.
#[test]
fn chmod_of_a_small_lower_file_makes_eleven_calls() {
    let base = tempfile::tempdir().expect("makes a directory");
    let Some((union, dir)) = mounted(base.path()) else { return };
    let file = find(&union, dir, "b");
    let changes = Changes { mode: Some(0o600), ..Changes::default() };
    assert_calls(11, || {
        let changed = union.set_attributes(&CALLER, file, &changes).expect("changes");
        assert_eq!(changed.mode & 0o7777, 0o600);
    });
}

/// A link of the whiteout that all share, once there is one.
#[test]
fn unlink_of_a_lower_file_makes_one_call() {
    let base = tempfile::tempdir().expect("makes a directory");
    let Some((union, dir)) = mounted(base.path()) else { return };
    union.remove_file(dir, OsStr::new("b")).expect("removes");
    assert_calls(1, || union.remove_file(dir, OsStr::new("c")).expect("removes"));
}

/// Open and stat; no name is asked for, since the directory was empty when it was made. The first one asks for a default ACL.
#[test]
fn create_in_a_copied_directory_makes_two_calls() {
    let base = tempfile::tempdir().expect("makes a directory");
    let Some((union, dir)) = mounted(base.path()) else { return };
    let create = |name: &str| union.create(&CALLER, dir, OsStr::new(name), 0o644).expect("creates").number;
    create("first");
    assert_calls(2, || assert_ne!(create("second"), dir));
}

/// Look at the old name under the locks, and move it.
#[test]
fn rename_of_a_new_file_makes_two_calls() {
    let base = tempfile::tempdir().expect("makes a directory");
    let Some((union, dir)) = mounted(base.path()) else { return };
    union.create(&CALLER, dir, OsStr::new("new"), 0o644).expect("creates");
    assert_calls(2, || {
        union.rename(dir, OsStr::new("new"), dir, OsStr::new("renamed"), RenameFlags::default()).expect("renames");
    });
}

/// The time is not read again for each copy: whatever changes it in between must be noticed.
#[test]
fn copy_up_keeps_the_time_of_its_directory_whatever_came_before() {
    let name = OsStr::new;
    type Change = fn(&Union, InodeNumber);
    let changes: [Change; 6] = [
        |union, dir| assert!(union.create(&CALLER, dir, OsStr::new("new"), 0o644).is_ok()),
        |union, dir| assert!(union.remove_file(dir, OsStr::new("a")).is_ok()),
        |union, dir| assert!(union.make_dir(&CALLER, dir, OsStr::new("new"), 0o755).is_ok()),
        |union, dir| assert!(union.link(find(union, dir, "a"), dir, OsStr::new("new")).is_ok()),
        |union, dir| {
            let exchange = RenameFlags { exchange: true, ..RenameFlags::default() };
            assert_eq!(union.rename(dir, OsStr::new("a"), dir, OsStr::new("b"), exchange), Ok(()));
        },
        |union, dir| assert!(union.set_attributes(&CALLER, dir, &long_ago()).is_ok()),
    ];
    for change in changes {
        let base = tempfile::tempdir().expect("makes a directory");
        let Some((union, dir)) = mounted(base.path()) else { return };
        let [b, c] = ["b", "c"].map(|file| union.lookup(dir, name(file)).expect("looks up").expect("is there").number);
        union.write(b, 0, b"copied", false).expect("writes");
        change(&union, dir);
        let before = union.attributes(dir).expect("has attributes").mtime;
        union.write(c, 0, b"copied", false).expect("writes");
        assert_eq!(union.attributes(dir).expect("has attributes").mtime, before);
    }
}

fn long_ago() -> Changes {
    Changes { mtime: TimeChange::At(Timestamp { seconds: 1000, nanoseconds: 1 }), ..Changes::default() }
}
