//! What a directory takes on disk, found by looking at all of it: the judge of those who say that they know. Invariant: as containerd counts
//! a snapshot, the directory itself is part of it, and a file with several names counts once.

use std::collections::HashSet;
use std::fmt::Debug;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::oracle::{Errno, Op, Reply, Target};
use crate::tree::Tree;

/// Allocated bytes and inodes; see stat(2) for the unit of `st_blocks`.
pub fn walk(root: &Path) -> (u64, u64) {
    let (mut bytes, mut inodes) = (0, 0);
    let mut linked = HashSet::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let found = path.symlink_metadata().unwrap_or_else(|error| panic!("stat {}: {error}", path.display()));
        if !found.is_dir() && found.nlink() > 1 && !linked.insert(found.ino()) {
            continue;
        }
        inodes += 1;
        bytes += found.blocks() * 512;
        if found.is_dir() {
            let entries = path.read_dir().unwrap_or_else(|error| panic!("list {}: {error}", path.display()));
            waiting.extend(entries.map(|entry| entry.expect("an entry of a directory").path()));
        }
    }
    (bytes, inodes)
}

/// How a target tells bytes and inodes.
type Told<'a, T> = Box<dyn Fn(&T) -> (u64, u64) + 'a>;

/// A target that is asked after each operation what its upper layer takes, and judged by a walk of it.
pub struct Judged<'a, T> {
    target: T,
    told: Told<'a, T>,
    upper: PathBuf,
    difference: Option<String>,
}

impl<'a, T> Judged<'a, T> {
    /// It is asked at once.
    pub fn new(target: T, upper: &Path, told: impl Fn(&T) -> (u64, u64) + 'a) -> Judged<'a, T> {
        let mut judged = Judged { target, told: Box::new(told), upper: upper.to_owned(), difference: None };
        judged.ask(&"the beginning");
        judged
    }

    fn ask(&mut self, after: &dyn Debug) {
        let (told, walked) = ((self.told)(&self.target), walk(&self.upper));
        if told != walked && self.difference.is_none() {
            self.difference = Some(format!("after {after:?}: told {told:?}, a walk finds {walked:?}"));
        }
    }

    /// The first difference.
    ///
    /// # Errors
    /// It, as a sentence.
    pub fn verdict(self) -> Result<(), String> {
        self.difference.map_or(Ok(()), Err)
    }
}

impl<T: Target> Target for Judged<'_, T> {
    fn apply(&mut self, op: &Op) -> Result<Reply, Errno> {
        let reply = self.target.apply(op);
        self.ask(op);
        reply
    }

    fn tree(&mut self) -> Tree {
        self.target.tree()
    }

    fn remount(&mut self) {
        self.target.remount();
        self.ask(&"a remount");
    }

    fn drop_caches(&mut self) {
        self.target.drop_caches();
        self.ask(&"forgetting");
    }
}
