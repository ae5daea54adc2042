//! What must stay although nothing refers to it yet.
//!
//! Owns the pins of loads and starts that are under way. They live in memory: only one process holds the store, and what a
//! crash interrupts is nobody's any more. Invariant: a pin that existed at any moment of a prune holds until its end.

use super::Store;
use crate::digest::{ChainId, Digest};
use parking_lot::{Mutex, MutexGuard};
use std::collections::{HashMap, HashSet};

/// What one lease pins.
#[derive(Debug, Default)]
struct Pins {
    blobs: HashSet<Digest>,
    chains: HashSet<ChainId>,
}

#[derive(Debug, Default)]
pub(super) struct Leases {
    state: Mutex<LeaseTable>,
}

#[derive(Debug, Default)]
pub(super) struct LeaseTable {
    next: u64,
    held: HashMap<u64, Pins>,
    /// How many prunes run, and what was let go since the first of them began.
    prunes: usize,
    let_go: Vec<Pins>,
}

impl LeaseTable {
    pub(super) fn is_blob_pinned(&self, digest: &Digest) -> bool {
        self.all().any(|pins| pins.blobs.contains(digest))
    }

    pub(super) fn is_chain_pinned(&self, chain: &ChainId) -> bool {
        self.all().any(|pins| pins.chains.contains(chain))
    }

    fn all(&self) -> impl Iterator<Item = &Pins> {
        self.held.values().chain(&self.let_go)
    }
}

/// Keeps what it was told to from being pruned, until it is dropped. Pin first, look whether it is there second; let go
/// after the record that refers to it is written.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    id: u64,
}

impl Store {
    /// A lease that pins nothing yet.
    pub fn lease(&self) -> Lease {
        let mut table = self.shared.leases.state.lock();
        let id = table.next;
        table.next += 1;
        table.held.insert(id, Pins::default());
        Lease { store: self.clone(), id }
    }

    /// The table, which nothing is pinned in while the guard lives.
    pub(super) fn pinned(&self) -> MutexGuard<'_, LeaseTable> {
        self.shared.leases.state.lock()
    }
}

impl Lease {
    /// Pins a blob, whether it is there or not.
    pub fn pin_blob(&self, digest: &Digest) {
        self.pins(|pins| pins.blobs.insert(*digest));
    }

    /// Pins a layer, whether it is there or not.
    pub fn pin_layer(&self, chain: &ChainId) {
        self.pins(|pins| pins.chains.insert(*chain));
    }

    fn pins(&self, add: impl FnOnce(&mut Pins) -> bool) {
        add(self.store.pinned().held.entry(self.id).or_default());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut table = self.store.pinned();
        let pins = table.held.remove(&self.id);
        if table.prunes > 0 {
            table.let_go.extend(pins);
        }
    }
}

/// While it lives, no pin is forgotten.
#[derive(Debug)]
pub(super) struct PruneUnderWay {
    store: Store,
}

impl PruneUnderWay {
    pub(super) fn begin(store: &Store) -> PruneUnderWay {
        store.pinned().prunes += 1;
        PruneUnderWay { store: store.clone() }
    }
}

impl Drop for PruneUnderWay {
    fn drop(&mut self) {
        let mut table = self.store.pinned();
        table.prunes -= 1;
        if table.prunes == 0 {
            table.let_go.clear();
        }
    }
}
