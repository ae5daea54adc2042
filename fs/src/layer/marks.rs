//! How many whiteouts and mark files an upper tree holds that are files of their own.
//!
//! Owns the count, relative to the mount's beginning. Must not know where they lie. Invariant: the whiteout that the others are
//! linked to is not counted here: its own link count says at any time whether the tree holds it. Where none can be shared, one that was
//! built and not published, as the operation failed, stays counted until somebody counts anew.

use crate::sys::stat::Stat;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// The count; a mark takes no blocks.
#[derive(Debug, Default)]
pub struct Marks {
    count: AtomicI64,
    /// Inode number of the whiteout that new ones are linked to; 0 while there is none.
    shared: AtomicU64,
}

impl Marks {
    /// One was made in the tree.
    pub fn made(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// One was taken out of the tree.
    pub fn taken(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// A name was taken out of the tree, of a mark that was this before.
    pub fn name_taken(&self, before: &Stat) {
        if before.nlink <= 1 || before.is_dir() {
            self.taken();
        }
    }

    /// How many more there are than at the mount's beginning.
    pub fn count(&self) -> i64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Which whiteout new ones are linked to from now on.
    pub fn share(&self, ino: u64) {
        self.shared.store(ino, Ordering::Relaxed);
    }

    /// Whether this is the inode number of the whiteout that new ones are linked to.
    pub fn is_shared(&self, ino: u64) -> bool {
        self.shared.load(Ordering::Relaxed) == ino
    }
}
