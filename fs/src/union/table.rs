//! The inodes that are alive.
//!
//! Owns which inode stands for which backing file, and when one may go. Must not do I/O. Invariant: an inode leaves only
//! when the kernel has forgotten it and nothing else refers to it: no child, no running operation.

use super::inode::{Identity, Inode, InodeNumber};
use crate::layer::LayerId;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An inode that left the table: its number, and the layers whose directories it had open.
pub struct Gone {
    /// Its number, which may be given out again.
    pub number: InodeNumber,
    /// Empty unless it was a directory.
    pub layers: Vec<LayerId>,
}

/// Inodes that were still in use when they were forgotten, looked at again per forget.
const RETRIES_PER_FORGET: usize = 4;
/// A table that once was larger than this gives memory back each time it has shrunk to half.
const TRIM_FROM: usize = 1024;

/// Number and identity to inode.
pub struct InodeTable {
    by_number: DashMap<InodeNumber, Arc<Inode>, RandomState>,
    by_identity: DashMap<Identity, InodeNumber, RandomState>,
    unused: Mutex<VecDeque<InodeNumber>>,
    len: AtomicUsize,
    peak: AtomicUsize,
}

impl InodeTable {
    /// A table that holds only the root.
    pub fn new(root: Arc<Inode>) -> Self {
        root.add_lookups(1);
        let table = InodeTable {
            by_number: DashMap::default(),
            by_identity: DashMap::default(),
            unused: Mutex::new(VecDeque::new()),
            len: AtomicUsize::new(1),
            peak: AtomicUsize::new(0),
        };
        table.by_number.insert(InodeNumber::ROOT, root);
        table
    }

    /// The inode of a number.
    pub fn get(&self, number: InodeNumber) -> Option<Arc<Inode>> {
        self.by_number.get(&number).map(|inode| inode.clone())
    }

    /// The inode that stands for a backing file, where one is alive.
    pub fn find(&self, identity: Identity) -> Option<Arc<Inode>> {
        let number = *self.by_identity.get(&identity)?;
        self.get(number)
    }

    /// How many inodes are alive.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// The inode of a backing file, made on first sight; counts `lookups`.
    ///
    /// `number(attempt)` gives the number to try; `make` builds the inode for the one that was free.
    pub fn intern(
        &self,
        identity: Identity,
        lookups: u64,
        number: impl Fn(u32) -> u64,
        make: impl FnOnce(InodeNumber) -> Inode,
    ) -> Arc<Inode> {
        let slot = self.by_identity.entry(identity);
        if let Entry::Occupied(known) = &slot
            && let Some(inode) = self.by_number.get(known.get())
        {
            inode.add_lookups(lookups);
            return inode.clone();
        }
        let mut attempt = 0;
        let inode = loop {
            let candidate = InodeNumber(number(attempt));
            attempt += 1;
            if candidate.0 <= InodeNumber::ROOT.0 {
                continue;
            }
            if let Entry::Vacant(free) = self.by_number.entry(candidate) {
                let inode = Arc::new(make(candidate));
                inode.add_lookups(lookups);
                free.insert(inode.clone());
                break inode;
            }
        };
        {
            let identities = &mut inode.state.write().identities;
            // Nearly every inode stays with one.
            identities.reserve_exact(1);
            identities.push(identity);
        }
        match slot {
            Entry::Occupied(mut known) => {
                known.insert(inode.number);
            }
            Entry::Vacant(free) => {
                free.insert(inode.number);
            }
        }
        let len = self.len.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(len, Ordering::Relaxed);
        if lookups == 0 {
            self.unused.lock().push_back(inode.number);
        }
        inode
    }

    /// Lets a further backing file stand for an inode.
    pub fn add_identity(&self, inode: &Arc<Inode>, identity: Identity) {
        self.by_identity.insert(identity, inode.number);
        let mut state = inode.state.write();
        if !state.identities.contains(&identity) {
            state.identities.push(identity);
        }
    }

    /// A backing file no longer stands for an inode.
    pub fn remove_identity(&self, inode: &Arc<Inode>, identity: Identity) {
        self.by_identity.remove_if(&identity, |_, number| *number == inode.number);
        inode.state.write().identities.retain(|known| *known != identity);
    }

    /// No backing file stands for an inode any more: the next file of that identity is another one.
    pub fn remove_identities(&self, inode: &Arc<Inode>) {
        let identities = std::mem::take(&mut inode.state.write().identities);
        for identity in identities {
            self.by_identity.remove_if(&identity, |_, number| *number == inode.number);
        }
    }

    /// The kernel forgets `lookups` lookups. Returns the inodes that left the table; `last` looks at one before it leaves.
    pub fn forget(&self, number: InodeNumber, lookups: u64, last: &dyn Fn(&Arc<Inode>)) -> Vec<Gone> {
        let mut gone = Vec::new();
        let left = self.by_number.get(&number).map(|inode| inode.take_lookups(lookups));
        if left == Some(0) {
            self.reap(number, last, &mut gone);
        }
        for _ in 0..RETRIES_PER_FORGET {
            let Some(number) = self.unused.lock().pop_front() else { break };
            self.reap(number, last, &mut gone);
        }
        if !gone.is_empty() {
            self.trim();
        }
        gone
    }

    /// Removes an inode, and then each directory above it that only it kept alive.
    fn reap(&self, number: InodeNumber, last: &dyn Fn(&Arc<Inode>), gone: &mut Vec<Gone>) {
        let mut next = Some(number);
        while let Some(number) = next.take() {
            let listed =
                |inode: &Arc<Inode>| number != InodeNumber::ROOT && inode.lookups() == 0 && inode.share.is_listed();
            // Looked at outside of the table's lock; should it change meanwhile, it stays for the next time.
            let listed = self.by_number.get(&number).filter(|inode| listed(inode)).map(|inode| Arc::clone(&inode));
            if let Some(inode) = listed {
                last(&inode);
            }
            let unused = |_: &InodeNumber, inode: &Arc<Inode>| {
                let idle = inode.lookups() == 0 && Arc::strong_count(inode) == 1;
                idle && !inode.share.is_listed() && number != InodeNumber::ROOT
            };
            let Some((_, inode)) = self.by_number.remove_if(&number, unused) else {
                if self.by_number.get(&number).is_some_and(|inode| inode.lookups() == 0) {
                    self.unused.lock().push_back(number);
                }
                return;
            };
            let identities = std::mem::take(&mut inode.state.write().identities);
            for identity in identities {
                self.by_identity
                    .remove_if(&identity, |_, known| *known == number && !self.by_number.contains_key(&number));
            }
            self.len.fetch_sub(1, Ordering::Relaxed);
            let layers = match inode.is_dir() {
                true => inode.lower_parts().iter().map(|part| part.layer).chain([LayerId::UPPER]).collect(),
                false => Vec::new(),
            };
            gone.push(Gone { number, layers });
            next = inode.home.clone().or_else(|| inode.state.read().place.clone()).map(|place| place.parent.number);
            // Its places refer to the parent: they go before the parent is looked at.
            drop(inode);
        }
    }

    fn trim(&self) {
        let (len, peak) = (self.len(), self.peak.load(Ordering::Relaxed));
        if peak < TRIM_FROM || len > peak / 2 {
            return;
        }
        self.peak.store(len, Ordering::Relaxed);
        self.by_number.shrink_to_fit();
        self.by_identity.shrink_to_fit();
        self.unused.lock().shrink_to_fit();
        crate::sys::memory::give_back();
    }
}
