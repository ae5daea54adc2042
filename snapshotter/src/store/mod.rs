//! The store: what is kept of images and snapshots, and where.
//!
//! Owns records, directories and blobs, and every change of them. Must not know containerd, gRPC or registries. Invariants: a
//! directory without a record is an orphan and goes at the next opening; a record is written after what it speaks of is
//! there, and deleted before.
//!
//! All calls block: asynchronous callers put them on a thread of their own.

mod blobs;
mod dirs;
mod fsck;
mod images;
mod layers;
mod leases;
mod lock;
mod metadata;
mod prune;
mod snapshots;
mod spool;
#[cfg(test)]
mod tests;

pub use blobs::{BeginBlob, Blob, BlobStaging};
pub use dirs::Dirs;
pub(crate) use dirs::names;
pub use images::ImageRecord;
pub use layers::{Begin, LayerStaging, UnnamedLayer};
pub use leases::Lease;
pub use lock::Hold;
pub use prune::Pruned;
pub(crate) use snapshots::boot;
pub use spool::BlobSpool;

use crate::digest::{ChainId, Digest};
use crate::error::{Error, Result};
use leases::Leases;
use lock::StoreLock;
use metadata::Metadata;
use parking_lot::{Condvar, Mutex};
use std::collections::HashSet;
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// An open store; cheap to clone, shared by all threads of the process that holds it.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    // Fields drop in this order: the tables are closed before the lock is let go.
    metadata: Metadata,
    dirs: Dirs,
    next_id: AtomicU64,
    leases: Leases,
    layers_under_way: UnderWay<ChainId>,
    blobs_under_way: UnderWay<Digest>,
    _lock: StoreLock,
}

impl Store {
    /// Opens the store at `root`, or creates one there, for the length of a command. Waits while another command has it.
    ///
    /// # Errors
    /// [`Error::InUse`] if a daemon has it; [`Error::NewerSchema`]; [`Error::Io`].
    pub fn open(root: &Path) -> Result<Store> {
        Store::open_for(root, Hold::Command)
    }

    /// Opens the store as [`Store::open`] does, and says how long it will be held.
    ///
    /// # Errors
    /// As [`Store::open`]; a daemon does not wait.
    pub fn open_for(root: &Path, hold: Hold) -> Result<Store> {
        std::fs::create_dir_all(root).map_err(Error::io("create directory", root))?;
        let root = root.canonicalize().map_err(Error::io("find", root))?;
        let lock = StoreLock::take(&root, hold)?;
        let dirs = Dirs::create(&root)?;
        let metadata = Metadata::open(&root, &dirs.metadata())?;
        let next_id = AtomicU64::new(metadata.next_id()?);
        let shared = Shared {
            metadata,
            dirs,
            next_id,
            leases: Leases::default(),
            layers_under_way: UnderWay::default(),
            blobs_under_way: UnderWay::default(),
            _lock: lock,
        };
        let store = Store { shared: Arc::new(shared) };
        store.remove_orphans()?;
        Ok(store)
    }

    /// Where the store of whoever asks is: /var/lib/lamina for root, $XDG_DATA_HOME/lamina for a user.
    ///
    /// # Errors
    /// [`Error::NoRoot`].
    pub fn default_root() -> Result<PathBuf> {
        if nix::unistd::geteuid().is_root() {
            return Ok(PathBuf::from("/var/lib/lamina"));
        }
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let data = variable("XDG_DATA_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/share")));
        data.map(|data| data.join("lamina")).ok_or(Error::NoRoot)
    }

    /// The store's paths.
    pub fn dirs(&self) -> &Dirs {
        &self.shared.dirs
    }

    fn metadata(&self) -> &Metadata {
        &self.shared.metadata
    }

    /// A number that nothing has had. Directories of numbers that were given out and never recorded are orphans, which the
    /// next opening removes before it gives out any.
    fn new_id(&self) -> u64 {
        self.shared.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// What a crash left: directories without a record, blobs on their way in.
    fn remove_orphans(&self) -> Result<()> {
        let dirs = self.dirs();
        for content in dirs.contents()? {
            if !self.metadata().read(|view| view.is_content_used(content))? {
                tracing::info!(content, "removing a directory that no snapshot shows");
                dirs.remove_content(content)?;
            }
        }
        for name in dirs::names(&dirs.ingest())? {
            let path = dirs.ingest().join(name);
            std::fs::remove_file(&path).map_err(Error::io("delete", &path))?;
        }
        Ok(())
    }
}

/// What threads are working on: a second one waits for the first, and then looks again.
#[derive(Debug)]
struct UnderWay<T> {
    taken: Mutex<HashSet<T>>,
    freed: Condvar,
}

impl<T> Default for UnderWay<T> {
    fn default() -> Self {
        UnderWay { taken: Mutex::new(HashSet::new()), freed: Condvar::new() }
    }
}

impl<T: Eq + Hash + Copy> UnderWay<T> {
    fn take(&self, what: T) {
        let mut taken = self.taken.lock();
        while !taken.insert(what) {
            self.freed.wait(&mut taken);
        }
    }

    fn free(&self, what: &T) {
        self.taken.lock().remove(what);
        self.freed.notify_all();
    }
}
