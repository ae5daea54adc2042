//! The open descriptors of the layers' files, as many as the process may have.
//!
//! Owns which descriptor is kept open and which is closed first. Must not know how to open one. Invariant: a key names a
//! backing file, not just an inode, so what was opened before a copy-up is never found after it.

use super::InodeNumber;
use crate::layer::LayerId;
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// What a descriptor is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Use {
    /// One layer's part of a directory.
    Dir(LayerId),
    /// A reference (`O_PATH`) to the file in the upper layer, or in a lower one.
    Path {
        /// In the upper layer.
        upper: bool,
    },
    /// The data, for reading.
    Read {
        /// In the upper layer.
        upper: bool,
    },
    /// The data in the upper layer, for reading and writing.
    Write,
}

/// The uses that an inode which is not a directory can have.
pub const FILE_USES: [Use; 5] = [
    Use::Path { upper: false },
    Use::Path { upper: true },
    Use::Read { upper: false },
    Use::Read { upper: true },
    Use::Write,
];

type Key = (InodeNumber, Use);

/// Parts of the table that are locked separately.
const SHARDS: usize = 16;
/// Descriptors that each part keeps at the least.
const PER_SHARD_MIN: usize = 4;

/// A bounded table of descriptors; the least recently used one is closed first.
pub struct Descriptors {
    shards: Vec<Mutex<LruCache<Key, Arc<OwnedFd>>>>,
}

impl Descriptors {
    /// Keeps about `max` descriptors open.
    pub fn new(max: usize) -> Self {
        let per_shard = NonZeroUsize::new((max / SHARDS).max(PER_SHARD_MIN)).unwrap_or(NonZeroUsize::MIN);
        let shard = || Mutex::new(LruCache::unbounded());
        let shards: Vec<Mutex<LruCache<Key, Arc<OwnedFd>>>> = (0..SHARDS).map(|_| shard()).collect();
        for shard in &shards {
            // An LruCache made with its capacity allocates all of it at once.
            shard.lock().resize(per_shard);
        }
        Descriptors { shards }
    }

    fn shard(&self, inode: InodeNumber) -> &Mutex<LruCache<Key, Arc<OwnedFd>>> {
        // Fibonacci hashing: inode numbers are dense, their high bits of the product are not.
        let slot = inode.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60;
        &self.shards[slot as usize % SHARDS]
    }

    /// The descriptor, where it is open.
    pub fn get(&self, inode: InodeNumber, purpose: Use) -> Option<Arc<OwnedFd>> {
        self.shard(inode).lock().get(&(inode, purpose)).cloned()
    }

    /// Keeps a descriptor; returns it shared.
    pub fn insert(&self, inode: InodeNumber, purpose: Use, fd: OwnedFd) -> Arc<OwnedFd> {
        let fd = Arc::new(fd);
        let evicted = self.shard(inode).lock().push((inode, purpose), fd.clone());
        // Closed here, after the lock: close(2) of a network file may take long.
        drop(evicted);
        fd
    }

    /// Closes what is kept of an inode for these uses.
    pub fn forget(&self, inode: InodeNumber, uses: impl IntoIterator<Item = Use>) {
        for purpose in uses {
            let closed = self.shard(inode).lock().pop(&(inode, purpose));
            drop(closed);
        }
    }

    /// Closes the least recently used half, when the process has run out of descriptors.
    pub fn halve(&self) {
        for shard in &self.shards {
            let mut closed = Vec::new();
            let mut shard = shard.lock();
            for _ in 0..shard.len().div_ceil(2) {
                closed.extend(shard.pop_lru());
            }
            drop(shard);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any_fd() -> OwnedFd {
        std::fs::File::open("/").expect("opens").into()
    }

    #[test]
    fn the_least_recently_used_descriptor_is_closed_first() {
        let table = Descriptors::new(0);
        let inode = InodeNumber(1);
        for id in 0..PER_SHARD_MIN as u16 {
            table.insert(inode, Use::Dir(LayerId(id)), any_fd());
        }
        assert!(table.get(inode, Use::Dir(LayerId(0))).is_some());
        table.insert(inode, Use::Write, any_fd());
        assert!(table.get(inode, Use::Dir(LayerId(0))).is_some());
        assert!(table.get(inode, Use::Dir(LayerId(1))).is_none());
    }

    #[test]
    fn a_forgotten_inode_keeps_nothing() {
        let table = Descriptors::new(64);
        table.insert(InodeNumber(5), Use::Write, any_fd());
        table.forget(InodeNumber(5), FILE_USES);
        assert!(table.get(InodeNumber(5), Use::Write).is_none());
    }
}
