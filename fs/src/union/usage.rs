//! What the upper layer takes on disk, known at any time without looking at all of it.
//!
//! Owns two sums, of blocks and of inodes, relative to the mount's beginning, and which inodes have changed since they were last
//! looked at. Each inode says how many of the blocks are its own, so an inode that goes takes exactly those with it. Must not
//! know who asks. Invariants: an operation adds no system call for it; those that it takes are made when somebody asks, one for
//! each inode that has changed, or when the kernel forgets such an inode. What is noted of a change is noted after it.
//!
//! A filesystem may settle the blocks of a file only when it writes the data out, so an inode stays among those that are looked at
//! for `SETTLE_TIME` after the last change that was seen. A file that somebody can write behind the union's back is one of them
//! for as long as the kernel knows it. What the filesystem does to a file after the last look is missed until its next change: inodes are
//! exact, blocks are but for that (docs/operations.md).

use super::Union;
use super::inode::{Inode, InodeNumber};
use crate::error::Result;
use crate::layer::{Upper, UsageRecord, list};
use crate::sys::stat::Stat;
use crate::sys::{open, stat};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// `st_blocks` counts these, see stat(2).
const BLOCK_BYTES: i64 = 512;

/// Twice the age at which the kernel writes data out (`vm.dirty_expire_centisecs`).
const SETTLE_TIME: Duration = Duration::from_secs(60);

/// Parts of the table of changed inodes that are locked separately.
const SHARDS: usize = 16;

/// How often a count that changes disturb is begun anew; then it is taken as it is.
const RECOUNTS_MAX: usize = 3;

/// What a layer takes on disk, its root directory included; files with several names once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Allocated bytes.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

/// An inode that has no name in the upper layer.
const OUTSIDE: u64 = u64::MAX;

/// What of an inode is in the sums.
pub struct Share {
    /// Blocks; `OUTSIDE` where the inode is in neither sum.
    blocks: AtomicU64,
    /// It has changed since it was last looked at.
    changed: AtomicBool,
    /// It is in the table of changed inodes.
    listed: AtomicBool,
    /// It may change without the union being told.
    lent: AtomicBool,
}

impl Share {
    /// Of an inode that the upper layer has under a name, as this; `None`: that it has not.
    pub fn new(found: Option<&Stat>) -> Share {
        Share {
            blocks: AtomicU64::new(found.map_or(OUTSIDE, |found| found.blocks)),
            changed: AtomicBool::new(false),
            listed: AtomicBool::new(false),
            lent: AtomicBool::new(false),
        }
    }

    /// Whether it is to be looked at before it may be forgotten.
    pub fn is_listed(&self) -> bool {
        self.listed.load(SeqCst)
    }

    fn is_outside(&self) -> bool {
        self.blocks.load(SeqCst) == OUTSIDE
    }
}

/// The sums of one mount.
pub struct Sums {
    /// What the upper layer took at the mount's beginning: blocks and inodes; `None` while nobody has counted.
    base: Mutex<Option<(i64, i64)>>,
    blocks: AtomicI64,
    inodes: AtomicI64,
    /// When a change of each was last seen.
    listed: [Mutex<HashMap<InodeNumber, Option<Instant>>>; SHARDS],
}

impl Sums {
    /// At the mount's beginning.
    pub fn new(base: Option<(i64, i64)>) -> Sums {
        let listed = std::array::from_fn(|_| Mutex::default());
        Sums { base: Mutex::new(base), blocks: AtomicI64::new(0), inodes: AtomicI64::new(0), listed }
    }

    fn shard(&self, inode: InodeNumber) -> &Mutex<HashMap<InodeNumber, Option<Instant>>> {
        &self.listed[inode.0 as usize % SHARDS]
    }

    fn unlist(&self, inode: &Inode) {
        self.shard(inode.number).lock().remove(&inode.number);
        inode.share.listed.store(false, SeqCst);
    }
}

/// Notes a change when it is dropped: after it.
pub(super) struct Changing<'a> {
    union: &'a Union,
    inode: &'a Inode,
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.union.changed(self.inode);
    }
}

impl Union {
    /// The blocks of an inode may change until the answer goes.
    pub(super) fn changing<'a>(&'a self, inode: &'a Inode) -> Changing<'a> {
        Changing { union: self, inode }
    }

    /// The blocks of an inode may have changed.
    pub(super) fn changed(&self, inode: &Inode) {
        let share = &inode.share;
        if share.is_outside() || share.changed.load(SeqCst) || share.changed.swap(true, SeqCst) {
            return;
        }
        if !share.listed.swap(true, SeqCst) {
            self.sums.shard(inode.number).lock().insert(inode.number, None);
        }
    }

    /// An inode is going to change without the union being told.
    pub(super) fn changes_unseen(&self, inode: &Inode) {
        inode.share.lent.store(true, SeqCst);
        self.changed(inode);
    }

    /// The upper layer has a name for an inode; `known` is what was made, where it is as it will stay until the next change.
    pub(super) fn entered(&self, inode: &Inode, known: Option<&Stat>) {
        let blocks = known.map_or(0, |known| known.blocks);
        if inode.share.blocks.compare_exchange(OUTSIDE, blocks, SeqCst, SeqCst).is_ok() {
            self.sums.inodes.fetch_add(1, SeqCst);
            self.sums.blocks.fetch_add(blocks.cast_signed(), SeqCst);
        }
        if known.is_none() {
            self.changed(inode);
        }
    }

    /// The upper layer has no name for an inode any more.
    pub(super) fn left(&self, inode: &Inode) {
        let blocks = inode.share.blocks.swap(OUTSIDE, SeqCst);
        if blocks != OUTSIDE {
            self.sums.inodes.fetch_sub(1, SeqCst);
            self.sums.blocks.fetch_sub(blocks.cast_signed(), SeqCst);
        }
    }

    /// Looks at a changed inode; whether its blocks have changed.
    fn look_at(&self, inode: &Arc<Inode>) -> Result<bool> {
        let share = &inode.share;
        let told = share.changed.swap(false, SeqCst);
        let before = share.blocks.load(SeqCst);
        if before == OUTSIDE {
            return Ok(false);
        }
        let now = self.backing_stat(inode)?.blocks;
        match share.blocks.compare_exchange(before, now, SeqCst, SeqCst) {
            Ok(_) => {
                self.sums.blocks.fetch_add(now.cast_signed() - before.cast_signed(), SeqCst);
                Ok(told || now != before)
            }
            // Somebody else has looked as well, or its last name has gone.
            Err(_) => {
                share.changed.store(true, SeqCst);
                Ok(true)
            }
        }
    }

    /// Looks at every changed inode.
    fn look(&self) {
        let now = Instant::now();
        for shard in &self.sums.listed {
            let numbers: Vec<InodeNumber> = shard.lock().keys().copied().collect();
            for number in numbers {
                let Ok(inode) = self.inode(number) else {
                    shard.lock().remove(&number);
                    continue;
                };
                let changed = self.look_at(&inode).unwrap_or_else(|error| {
                    tracing::debug!(%error, inode = number.0, "its blocks are not known");
                    inode.share.changed.store(true, SeqCst);
                    true
                });
                if changed {
                    if let Some(seen) = shard.lock().get_mut(&number) {
                        *seen = Some(now);
                    }
                    continue;
                }
                let seen = shard.lock().get(&number).copied().flatten();
                let settled = seen.is_none_or(|seen| now.duration_since(seen) > SETTLE_TIME);
                if settled && !inode.share.lent.load(SeqCst) || inode.share.is_outside() {
                    self.sums.unlist(&inode);
                    // Whoever saw it in the table has not put it there.
                    if inode.share.changed.swap(false, SeqCst) {
                        self.changed(&inode);
                    }
                }
            }
        }
    }

    /// Looks at an inode that the kernel has forgotten.
    pub(super) fn look_last(&self, inode: &Arc<Inode>) {
        // First taken out of the table: a change that comes meanwhile puts it there again.
        self.sums.unlist(inode);
        match self.look_at(inode) {
            Ok(_) if inode.share.changed.swap(false, SeqCst) => self.changed(inode),
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, inode = inode.number.0, "its last blocks are not known"),
        }
    }

    /// What the upper layer takes; `None` where that is not known before somebody has counted, and where there is none.
    ///
    /// # Errors
    /// What the filesystem says of the work directory.
    pub fn usage(&self) -> Result<Option<Usage>> {
        let Some(upper) = &self.stack.upper else { return Ok(None) };
        let Some(base) = *self.sums.base.lock() else { return Ok(None) };
        self.look();
        let (blocks, inodes) = self.gained(upper);
        let shared = upper.shared_whiteout()?.is_some_and(|shared| shared.nlink > 1);
        let number = |sum: i64| u64::try_from(sum).unwrap_or_default();
        Ok(Some(Usage {
            bytes: number((base.0 + blocks) * BLOCK_BYTES),
            inodes: number(base.1 + inodes + i64::from(shared)),
        }))
    }

    /// The sums: blocks and inodes, but for the shared whiteout.
    fn gained(&self, upper: &Upper) -> (i64, i64) {
        let inodes = self.sums.inodes.load(SeqCst) + upper.work().marks().count();
        (self.sums.blocks.load(SeqCst), inodes)
    }

    /// Counts what the upper layer takes by looking at all of it, so that it is known from now on. Exact unless it is changed
    /// all the time meanwhile.
    ///
    /// # Errors
    /// What the filesystem says of a directory; then it stays unknown.
    pub fn recount(&self) -> Result<()> {
        let upper = self.stack.upper()?;
        for _ in 0..RECOUNTS_MAX {
            self.look();
            let before = self.gained(upper);
            let (blocks, inodes) = walk(upper)?;
            self.look();
            let after = self.gained(upper);
            *self.sums.base.lock() = Some((blocks - after.0, inodes - after.1));
            if before == after {
                break;
            }
        }
        Ok(())
    }

    /// What the upper layer takes, to be written down for the next mount; nothing changes it any more.
    fn usage_record(&self, upper: &Upper, boot: Option<String>) -> Result<Option<UsageRecord>> {
        let Some(base) = *self.sums.base.lock() else { return Ok(None) };
        self.look();
        let (blocks, inodes) = self.gained(upper);
        let work = upper.work().birth()?;
        Ok(Some(UsageRecord { blocks: base.0 + blocks, inodes: base.1 + inodes, work, boot }))
    }

    /// Writes down what the upper layer takes, for the next mount in this life of the machine.
    pub(super) fn keep_usage(&self, upper: &Upper) -> Result<Option<Stat>> {
        let Some(boot) = boot() else { return Ok(None) };
        match self.usage_record(upper, Some(boot))? {
            Some(record) => upper.keep_usage(&record),
            None => Ok(None),
        }
    }

    /// The same for any next mount, once everything is on the disk; nothing where another mount has begun meanwhile, which has
    /// taken what was written.
    pub(super) fn keep_usage_for_good(&self, upper: &Upper, before: &Stat) -> Result<()> {
        if !upper.work().lock_again() {
            return Ok(());
        }
        let kept = match upper.keeps_usage(before)? {
            true => self.usage_record(upper, None).and_then(|record| match record {
                Some(record) => upper.keep_usage(&record).map(drop),
                None => Ok(()),
            }),
            false => Ok(()),
        };
        upper.work().unlock();
        kept
    }
}

/// Which life of the machine this is.
fn boot() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned())
}

/// What is known at a mount's beginning: of an empty layer, or of one that a mount before has left in good order.
pub fn at_mount(upper: &Upper) -> Result<Option<(i64, i64)>> {
    let kept = upper.take_usage()?;
    let root = upper.layer().root();
    if list(root)?.is_empty() {
        return Ok(Some((stat::stat_fd(root)?.blocks.cast_signed(), 1)));
    }
    let work = upper.work().birth()?;
    let holds = |kept: &UsageRecord| kept.work == work && (kept.boot.is_none() || kept.boot == boot());
    Ok(kept.filter(holds).map(|kept| (kept.blocks, kept.inodes)))
}

/// Blocks and inodes of the upper layer, but for the whiteout that others are linked to.
fn walk(upper: &Upper) -> Result<(i64, i64)> {
    let root = stat::stat_fd(upper.layer().root())?;
    let (mut blocks, mut inodes) = (root.blocks.cast_signed(), 1);
    let mut linked = HashSet::new();
    let first = open::reopen_dir(upper.layer().root())?;
    let names = list(first.as_fd())?;
    let mut open: Vec<(OwnedFd, Vec<_>)> = vec![(first, names)];
    while let Some((dir, names)) = open.last_mut() {
        let Some(entry) = names.pop() else {
            open.pop();
            continue;
        };
        if upper.work().marks().is_shared(entry.ino) {
            continue;
        }
        // It may have gone meanwhile.
        let Some(found) = stat::stat_at(dir.as_fd(), &entry.name)? else { continue };
        if found.dev != root.dev || (!found.is_dir() && found.nlink > 1 && !linked.insert(found.ino)) {
            continue;
        }
        blocks += found.blocks.cast_signed();
        inodes += 1;
        if found.is_dir() {
            match open::open_dir(dir.as_fd(), &entry.name) {
                Ok(below) => {
                    let names = list(below.as_fd())?;
                    open.push((below, names));
                }
                Err(error) if error.is(libc::ENOENT) || error.is(libc::ENOTDIR) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok((blocks, inodes))
}

#[cfg(test)]
mod tests;
