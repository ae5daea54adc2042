//! A layer's archive from a stranger, compressed or not: it changes nothing outside the directory that it is applied to, and what it leaves
//! can be written as a layer and applied again, with the same files.
#![no_main]

use std::fs::{self, File};
use std::io::{self, BufReader, Cursor};
use std::os::fd::AsFd;
use std::path::Path;

use lamina_fs::layer::{
    ApplyError, ApplyOptions, Expansion, Limits, Mountpoints, OverrideStat, apply, diff, read_blob,
};
use libfuzzer_sys::fuzz_target;
use support::tree::{Tree, View};

const LIMITS: Limits = Limits { bytes_max: 1 << 20, inodes_max: 200 };

fuzz_target!(|bytes: &[u8]| {
    let Some((&how, archive)) = bytes.split_first() else { return };
    let owners =
        if how & 1 == 0 && rustix::process::geteuid().is_root() { OverrideStat::Off } else { OverrideStat::User };
    let home = tempfile::tempdir().expect("a directory");
    let outside = home.path().join("outside");
    fs::create_dir(&outside).expect("mkdir");
    fs::write(outside.join("kept"), "kept").expect("a file");
    let before = Tree::read(&outside);
    let layer = directory(home.path(), "layer");
    let options = ApplyOptions { owners, limits: LIMITS };
    let expansion = Expansion { bytes_max: 4 << 20, ..Expansion::default() };
    let done = read_blob(Cursor::new(archive.to_vec()), expansion, &|_| {}, |blob| {
        apply(layer.as_fd(), blob, &options).map_err(io::Error::other)
    });
    before.assert_same(&Tree::read(&outside), View::ALL);
    assert_eq!(fs::read_dir(home.path()).expect("the home").count(), 2, "something was made beside the layer");
    if done.is_err() {
        return;
    }

    let mut changeset = Vec::new();
    diff(layer.as_fd(), owners, &Mountpoints::default(), &mut changeset).expect("what was applied can be written");
    let again = directory(home.path(), "again");
    let applied: Result<_, ApplyError> = apply(again.as_fd(), BufReader::new(&changeset[..]), &options);
    applied.expect("what was written can be applied");
    let mut twice = Vec::new();
    diff(again.as_fd(), owners, &Mountpoints::default(), &mut twice).expect("it can be written again");
    assert!(changeset == twice, "apply of diff changed the layer");
});

fn directory(home: &Path, name: &str) -> File {
    let path = home.join(name);
    fs::create_dir(&path).expect("mkdir");
    File::open(&path).expect("a directory just made")
}
