//! What a question costs in system calls.

use crate::sys::calls;
use crate::union::{Caller, Config, InodeNumber, Union, UpperConfig};
use std::ffi::OsStr;
use std::fs;

const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022 };

/// Files that a question looks at.
const CHANGED: u64 = 3;

#[test]
fn question_looks_at_what_has_changed_and_at_the_shared_whiteout() {
    let base = tempfile::tempdir().expect("makes a directory");
    for dir in ["lower", "upper", "work"] {
        fs::create_dir_all(base.path().join(dir)).expect("makes a directory");
    }
    let upper = UpperConfig { upper: base.path().join("upper"), work: base.path().join("work") };
    let config = Config { sync: false, upper: Some(upper), ..Config::new(vec![base.path().join("lower")]) };
    let union = Union::new(config).expect("opens");
    let create = |name: String| union.create(&CALLER, InodeNumber::ROOT, OsStr::new(&name), 0o644).expect("creates");
    let files: Vec<InodeNumber> = (0..1000).map(|number| create(number.to_string()).number).collect();
    let asked = || {
        let before = calls::so_far();
        let usage = union.usage().expect("tells").expect("is known");
        (usage.inodes, calls::so_far() - before)
    };
    // Of the new files nothing is left to be known; their directory may have grown, and the work directory is asked for its own part.
    let (inodes, spent) = asked();
    assert_eq!(inodes, 1001);
    assert!(spent <= 3, "{spent} calls");
    for file in files.iter().take(CHANGED as usize) {
        union.write(*file, 0, b"more", false).expect("writes");
    }
    let (_, spent) = asked();
    assert!(spent <= 3 + CHANGED, "{spent} calls");
}
