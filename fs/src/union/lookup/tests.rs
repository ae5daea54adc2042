//! What a lookup costs: allocations and system calls, counted in this thread.

use crate::sys::{calls, memory};
use crate::union::{Config, InodeNumber, Union, UpperConfig, build_index};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

/// Layers of the stack.
const LAYERS: usize = 4;

fn layers(base: &Path) -> Config {
    for dir in ["upper", "work"] {
        fs::create_dir(base.join(dir)).expect("makes a directory");
    }
    let lowers: Vec<_> = (0..LAYERS).map(|layer| base.join(format!("layer{layer}"))).collect();
    for (layer, root) in lowers.iter().enumerate() {
        fs::create_dir_all(root.join("d")).expect("makes a directory");
        fs::write(root.join(format!("d/f{layer}")), "content").expect("writes a file");
    }
    let upper = UpperConfig { upper: base.join("upper"), work: base.join("work") };
    Config { upper: Some(upper), ..Config::new(lowers) }
}

fn indexed(base: &Path) -> Union {
    let config = layers(base);
    let index = base.join("index");
    build_index(&config, &index, |_| {}).expect("builds an index");
    Union::new(Config { index: Some(index), ..config }).expect("opens")
}

fn spent(what: impl FnOnce()) -> (u64, u64) {
    let before = (memory::allocations(), calls::so_far());
    what();
    (memory::allocations() - before.0, calls::so_far() - before.1)
}

#[test]
fn lookup_of_a_known_name_in_an_index_allocates_nothing_and_makes_no_call() {
    let base = tempfile::tempdir().expect("makes a directory");
    let union = indexed(base.path());
    let dir = union.lookup(InodeNumber::ROOT, OsStr::new("d")).expect("looks up").expect("is there").number;
    let name = format!("f{}", LAYERS - 1);
    let found = || assert!(union.lookup(dir, OsStr::new(&name)).expect("looks up").is_some());
    found();
    assert_eq!(spent(found), (0, 0));
}

#[test]
fn lookup_of_a_missing_name_in_an_index_allocates_nothing_and_makes_no_call() {
    let base = tempfile::tempdir().expect("makes a directory");
    let union = indexed(base.path());
    let dir = union.lookup(InodeNumber::ROOT, OsStr::new("d")).expect("looks up").expect("is there").number;
    let missing = || assert!(union.lookup(dir, OsStr::new("missing")).expect("looks up").is_none());
    assert_eq!(spent(missing), (0, 0));
}

#[test]
fn attributes_of_an_indexed_file_allocate_nothing_and_make_no_call() {
    let base = tempfile::tempdir().expect("makes a directory");
    let union = indexed(base.path());
    let dir = union.lookup(InodeNumber::ROOT, OsStr::new("d")).expect("looks up").expect("is there").number;
    let attributes = || assert_eq!(union.attributes(dir).expect("has attributes").number, dir);
    assert_eq!(spent(attributes), (0, 0));
}
