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

/// Listing it would allocate each name.
#[test]
fn one_lookup_in_a_large_directory_does_not_list_it() {
    const NAMES: usize = 100_000;
    let base = tempfile::tempdir().expect("makes a directory");
    let config = layers(base.path());
    // Names of a few files: a filesystem gives one file some 65,000 at the most.
    let large = base.path().join("layer0/d");
    for at in 0..NAMES {
        let (file, name) = (large.join(format!("file{}", at % 4)), large.join(format!("name{at}")));
        match at < 4 {
            true => fs::write(&file, "").expect("writes a file"),
            false => fs::hard_link(&file, name).expect("links a file"),
        }
    }
    let union = Union::new(config).expect("opens");
    let dir = union.lookup(InodeNumber::ROOT, OsStr::new("d")).expect("looks up").expect("is there").number;
    let found = || assert!(union.lookup(dir, OsStr::new("name77777")).expect("looks up").is_some());
    let (allocations, calls) = spent(found);
    assert!(allocations < 100 && calls < 20, "{allocations} allocations, {calls} calls");
}

#[test]
fn ten_thousand_misses_in_a_small_directory_list_it_once() {
    let base = tempfile::tempdir().expect("makes a directory");
    let union = Union::new(layers(base.path())).expect("opens");
    let dir = union.lookup(InodeNumber::ROOT, OsStr::new("d")).expect("looks up").expect("is there").number;
    let missing = || {
        for at in 0..10_000 {
            assert!(union.lookup(dir, OsStr::new(&format!("missing{at}"))).expect("looks up").is_none());
        }
    };
    // The layers are asked until listing them would have cost as much, by what the sizes of their directories let one guess; then listed.
    let (_, calls) = spent(missing);
    assert!(calls <= 200, "{calls} calls");
}
