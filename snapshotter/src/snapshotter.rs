//! What containerd asks of a snapshotter, put together from the store and the servers of the mounts.
//!
//! Owns the order of the two in each operation, and the counting of what layers take. Must not know gRPC. Invariant: commit
//! and usage walk no tree while somebody waits, but for the first question after a commit of what no server has mounted.

use crate::digest::ChainId;
use crate::error::{Error, Result};
use crate::mount::{Mount, Servers, is_unpacked};
use crate::snapshot::filter::Filters;
use crate::snapshot::{Kind, Labels, Snapshot, Space, Usage, lifecycle, usage};
use crate::store::Store;
use lamina_fs::fuse::usage::Answer;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// containerd notes the chain of a layer here, on what it asks for and on what it commits.
pub const CHAIN_LABEL: &str = "containerd.io/snapshot.ref";

/// How old the count of an active snapshot may be before the next question has it counted anew.
const COUNT_AGE_MIN: Duration = Duration::from_secs(10);

/// And how many times as long as the count itself took, so that counting large layers does not become the main work.
const COUNT_AGE_FACTOR: u32 = 20;

/// The operations; cheap to clone.
#[derive(Clone, Debug)]
pub struct Snapshotter {
    store: Store,
    servers: Servers,
    counts: Arc<Mutex<HashMap<u64, Count>>>,
    /// What the servers of committed snapshots have said at the end, until it is in the records.
    sealed: Arc<Mutex<HashMap<u64, Usage>>>,
    counter: Sender<u64>,
}

/// What was last known of an active snapshot.
#[derive(Clone, Copy, Debug)]
struct Count {
    usage: Usage,
    due: Instant,
}

impl Snapshotter {
    /// On an open store. Finds the servers of an earlier life, and settles in a thread of its own what was committed and not yet settled.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Metadata`].
    pub fn start(store: Store, servers: Servers) -> Result<Snapshotter> {
        let snapshots = store.list_all()?;
        let found = servers.recover(|id| snapshots.iter().any(|snapshot| snapshot.id == id))?;
        tracing::info!(snapshots = snapshots.len(), servers = found, "the store is open");
        let (counter, jobs) = channel();
        let snapshotter = Snapshotter { store, servers, counts: Arc::default(), sealed: Arc::default(), counter };
        let worker = snapshotter.clone();
        let thread = std::thread::Builder::new().name("count".into()).spawn(move || worker.count_all(&jobs));
        thread.map_err(Error::io("start a thread for", snapshotter.store.dirs().root()))?;
        for snapshot in snapshots.iter().filter(|snapshot| snapshot.unsynced.is_some()) {
            match snapshot.is_doubtful()? {
                false => snapshotter.count_later(snapshot.id),
                true => tracing::warn!(
                    snapshot = snapshot.key,
                    "the machine went down before its files were on disk, some may be missing or cut"
                ),
            }
        }
        Ok(snapshotter)
    }

    /// Makes a snapshot to write to, and says how to mount it.
    ///
    /// # Errors
    /// Those of [`Store::prepare`]; [`Error::LayerPresent`] if the labels name a chain that the store has, which is then there as a
    /// committed snapshot; [`Error::Server`], and then there is no snapshot.
    pub fn prepare(&self, space: &Space, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        if let Some(chain) = labels.get(CHAIN_LABEL).and_then(|chain| chain.parse::<ChainId>().ok()) {
            let noted = Labels::from([(CHAIN_LABEL.to_owned(), chain.to_string())]);
            if self.store.adopt(space, parent, &chain, noted)?.is_some() {
                return Err(Error::LayerPresent { chain: chain.to_string() });
            }
        }
        let snapshot = self.store.prepare(space, key, parent, labels)?;
        self.mounts_or_nothing(&snapshot)
    }

    /// Makes a snapshot to look at, and says how to mount it.
    ///
    /// # Errors
    /// As [`Snapshotter::prepare`].
    pub fn view(&self, space: &Space, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        let snapshot = self.store.view(space, key, parent, labels)?;
        self.mounts_or_nothing(&snapshot)
    }

    fn mounts_or_nothing(&self, snapshot: &Snapshot) -> Result<Vec<Mount>> {
        let mounts = self.servers.mounts(snapshot);
        if mounts.is_err() {
            self.store.remove(&snapshot.space, &snapshot.key)?;
        }
        mounts
    }

    /// How to mount a snapshot; its server is started if it does not run, also after a reboot.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`], [`Error::NotMountable`], [`Error::Server`].
    pub fn mounts(&self, space: &Space, key: &str) -> Result<Vec<Mount>> {
        let snapshot = self.store.stat(space, key)?;
        lifecycle::may_mount(&snapshot)?;
        self.servers.mounts(&snapshot)
    }

    /// Commits; see [`Store::commit`].
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn commit(&self, space: &Space, name: &str, key: &str, parent: &str, labels: Labels) -> Result<()> {
        let active = self.store.stat(space, key)?;
        lifecycle::may_commit(&active, parent)?;
        self.servers.flush(&active)?;
        let chain = if is_unpacked(key) { chain_of(name, &labels) } else { None };
        let committed = self.store.commit_chain(space, name, key, parent, labels, chain)?;
        if let Some(usage) = self.servers.seal(committed.id) {
            self.sealed.lock().insert(committed.id, usage);
        }
        self.count_later(committed.id);
        Ok(())
    }

    /// Removes a snapshot, its server first.
    ///
    /// # Errors
    /// As [`Store::remove`].
    pub fn remove(&self, space: &Space, key: &str) -> Result<()> {
        let snapshot = self.store.may_remove(space, key)?;
        self.servers.stop(snapshot.id)?;
        self.store.remove(space, key)?;
        // One that somebody started in between; now nobody can any more.
        self.servers.stop(snapshot.id)?;
        self.counts.lock().remove(&snapshot.id);
        self.sealed.lock().remove(&snapshot.id);
        Ok(())
    }

    /// See [`Store::stat`].
    ///
    /// # Errors
    /// As [`Store::stat`].
    pub fn stat(&self, space: &Space, key: &str) -> Result<Snapshot> {
        self.store.stat(space, key)
    }

    /// See [`Store::update`].
    ///
    /// # Errors
    /// As [`Store::update`].
    pub fn update(&self, space: &Space, key: &str, labels: &Labels, fields: &[String]) -> Result<Snapshot> {
        self.store.update(space, key, labels, fields)
    }

    /// The snapshots that any of the filters selects, as they were at one moment.
    ///
    /// # Errors
    /// [`Error::BadFilter`].
    pub fn list(&self, space: &Space, filters: &[String]) -> Result<Vec<Snapshot>> {
        let filters = Filters::parse(filters)?;
        let mut found = self.store.list(space)?;
        found.retain(|snapshot| filters.matches(snapshot));
        Ok(found)
    }

    /// What a snapshot's own layer takes. Of an active one that has a server, what that says; of another active one what the last
    /// count found, which is zero at first; a count that is too old is made anew after the answer. A committed one keeps what its
    /// server said last, or is counted.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`], [`Error::Io`].
    pub fn usage(&self, space: &Space, key: &str) -> Result<Usage> {
        let snapshot = self.store.stat(space, key)?;
        match (snapshot.kind, snapshot.usage) {
            (Kind::View, _) => Ok(Usage::default()),
            (Kind::Committed, Some(usage)) => Ok(usage),
            (Kind::Committed, None) => match self.sealed.lock().get(&snapshot.id).copied() {
                Some(usage) => Ok(usage),
                None => usage::count(&self.store.dirs().layer(snapshot.content)),
            },
            (Kind::Active, _) => {
                let told = self.servers.usage(&snapshot)?;
                if let Some(Answer::Known(told)) = told {
                    let usage = Usage { size: told.bytes, inodes: told.inodes };
                    self.counts.lock().insert(snapshot.id, Count { usage, due: Instant::now() });
                    return Ok(usage);
                }
                if told == Some(Answer::Counting) {
                    return Ok(self.counts.lock().get(&snapshot.id).map_or(Usage::default(), |count| count.usage));
                }
                let mut counts = self.counts.lock();
                let count = counts.get(&snapshot.id).copied();
                if count.is_none_or(|count| count.due <= Instant::now()) {
                    let usage = count.map_or(Usage::default(), |count| count.usage);
                    counts.insert(snapshot.id, Count { usage, due: Instant::now() + COUNT_AGE_MIN });
                    self.count_later(snapshot.id);
                }
                Ok(count.map_or(Usage::default(), |count| count.usage))
            }
        }
    }

    /// The queue holds no more than one entry for each snapshot: a commit happens once, and a question sets when the next is due.
    fn count_later(&self, snapshot: u64) {
        if self.counter.send(snapshot).is_err() {
            tracing::error!("the counting thread is gone: what layers take is not known any more");
        }
    }

    fn count_all(&self, jobs: &Receiver<u64>) {
        for id in jobs {
            let counted = self.store.by_id(id).and_then(|snapshot| match snapshot {
                Some(snapshot) if snapshot.kind == Kind::Active => self.count(&snapshot),
                Some(snapshot) if snapshot.unsynced.is_some() => {
                    self.counts.lock().remove(&id);
                    let known = self.sealed.lock().get(&id).copied();
                    // Kept until it is in the record: somebody may ask meanwhile.
                    let settled = self.store.settle(snapshot.content, known);
                    if settled.is_ok() {
                        self.sealed.lock().remove(&id);
                    }
                    settled
                }
                _ => Ok(()),
            });
            if let Err(error) = counted {
                tracing::warn!(snapshot = id, %error, "not counted");
            }
        }
    }

    fn count(&self, snapshot: &Snapshot) -> Result<()> {
        let begun = Instant::now();
        let usage = usage::count(&self.store.dirs().layer(snapshot.content))?;
        let age = COUNT_AGE_MIN.max(begun.elapsed() * COUNT_AGE_FACTOR);
        self.counts.lock().insert(snapshot.id, Count { usage, due: Instant::now() + age });
        Ok(())
    }
}

/// The chain of an unpacked layer: containerd names what it commits by it, behind the namespace and a number, and newer ones
/// note it on a label too.
fn chain_of(name: &str, labels: &Labels) -> Option<ChainId> {
    let own = name.splitn(3, '/').nth(2).unwrap_or(name);
    let named = own.parse::<ChainId>().ok();
    labels.get(CHAIN_LABEL).map_or(named, |noted| noted.parse().ok())
}
