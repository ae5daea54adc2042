//! Snapshots come, change and go.
//!
//! Owns the order of record and directory in each change. The rules are those of `snapshot::lifecycle`. Invariant: a refused
//! change leaves tables and directories as they were.

use super::Store;
use super::metadata::Change;
use crate::digest::ChainId;
use crate::error::{Error, Result};
use crate::snapshot::{Kind, Labels, Snapshot, Space, Usage, lifecycle, usage};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

impl Store {
    /// Makes a snapshot to write to, on top of a committed one; `parent` is empty for none.
    ///
    /// # Errors
    /// [`Error::SnapshotExists`], [`Error::NoParent`], [`Error::ParentNotCommitted`], [`Error::EmptyKey`].
    pub fn prepare(&self, space: &Space, key: &str, parent: &str, labels: Labels) -> Result<Snapshot> {
        self.create(space, key, (space, parent), labels, Kind::Active)
    }

    /// Makes the snapshot of a container, to write to, on the layer that is the top of an image's chain; on none for an image without
    /// layers. The layer stays as long as the snapshot does, whatever becomes of the image.
    ///
    /// # Errors
    /// [`Error::SnapshotExists`], [`Error::EmptyKey`]; [`Error::NoParent`] if the chain is not unpacked.
    pub fn prepare_container(&self, key: &str, chain: Option<&ChainId>, labels: Labels) -> Result<Snapshot> {
        let parent = chain.map(ChainId::to_string).unwrap_or_default();
        self.create(&Space::containers(), key, (&Space::lamina(), &parent), labels, Kind::Active)
    }

    /// Makes a snapshot to look at.
    ///
    /// # Errors
    /// As [`Store::prepare`].
    pub fn view(&self, space: &Space, key: &str, parent: &str, labels: Labels) -> Result<Snapshot> {
        self.create(space, key, (space, parent), labels, Kind::View)
    }

    /// Makes a snapshot that only keeps the layer on top of an image's chain, with all below it.
    ///
    /// # Errors
    /// As [`Store::prepare_container`].
    pub fn view_layer(&self, space: &Space, key: &str, chain: &ChainId) -> Result<Snapshot> {
        self.create(space, key, (&Space::lamina(), &chain.to_string()), Labels::new(), Kind::View)
    }

    fn create(
        &self,
        space: &Space,
        key: &str,
        (parent_space, parent): (&Space, &str),
        labels: Labels,
        kind: Kind,
    ) -> Result<Snapshot> {
        // A refusal must not cost directories; the transaction asks once more.
        let check = |existing: Option<Snapshot>, below: Option<Snapshot>| {
            lifecycle::may_create(key, existing.as_ref())?;
            match below {
                None if parent.is_empty() => Ok(None),
                None => Err(Error::NoParent { key: parent.to_owned() }),
                Some(below) => lifecycle::may_be_parent(&below).map(|()| Some(below)),
            }
        };
        self.metadata().read(|view| check(view.find(space, key)?, view.find(parent_space, parent)?))?;
        let id = self.new_id();
        let made = self.dirs().make_content(id, kind == Kind::Active).and_then(|()| {
            self.metadata().write(|change| {
                let below = check(change.find(space, key)?, change.find(parent_space, parent)?)?;
                let now = SystemTime::now();
                let snapshot = Snapshot {
                    id,
                    content: id,
                    space: space.clone(),
                    key: key.to_owned(),
                    kind,
                    parent: below.map(|below| below.id),
                    parent_key: parent.to_owned(),
                    labels,
                    created: now,
                    updated: now,
                    usage: Some(Usage::default()),
                    unsynced: None,
                    diff_id: None,
                    chain_id: None,
                };
                change.insert(&snapshot)?;
                Ok(snapshot)
            })
        });
        if made.is_err() {
            self.discard(id);
        }
        made
    }

    /// Turns an active snapshot into a committed one called `name`, with these labels and no others. Its usage is counted
    /// later. `parent` is what the caller believes it stands on, empty for no belief.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`], [`Error::NotActive`], [`Error::OtherParent`], [`Error::SnapshotExists`]; the active snapshot is
    /// then whole as before.
    pub fn commit(&self, space: &Space, name: &str, key: &str, parent: &str, labels: Labels) -> Result<Snapshot> {
        self.commit_chain(space, name, key, parent, labels, None)
    }

    /// As [`Store::commit`], for a layer of an image whose chain the caller vouches for. It is noted if that of the parent is known.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn commit_chain(
        &self,
        space: &Space,
        name: &str,
        key: &str,
        parent: &str,
        labels: Labels,
        chain_id: Option<ChainId>,
    ) -> Result<Snapshot> {
        let boot = boot()?;
        self.metadata().write(|change| {
            let active = require(change.find(space, key)?, key)?;
            lifecycle::may_commit(&active, parent)?;
            lifecycle::may_create(name, change.find(space, name)?.as_ref())?;
            let below = active.parent.map(|parent| change.snapshot(parent)).transpose()?;
            let chain_id = chain_id.filter(|_| below.is_none_or(|below| below.chain_id.is_some()));
            let now = SystemTime::now();
            let committed = Snapshot {
                key: name.to_owned(),
                kind: Kind::Committed,
                labels,
                created: now,
                updated: now,
                usage: None,
                unsynced: Some(boot.clone()),
                chain_id,
                ..active.clone()
            };
            change.delete(&active)?;
            change.insert(&committed)?;
            Ok(committed)
        })
    }

    /// Removes a snapshot, and its layer if no other snapshot shows it. Nothing may be mounted on it any more.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`], [`Error::HasChildren`].
    pub fn remove(&self, space: &Space, key: &str) -> Result<()> {
        let content = self.metadata().write(|change| {
            let snapshot = require(change.find(space, key)?, key)?;
            lifecycle::may_remove(&snapshot, change.has_children(snapshot.id)?)?;
            delete(change, &snapshot)
        })?;
        if let Some(content) = content {
            self.discard(content);
        }
        Ok(())
    }

    /// Whether [`Store::remove`] would be refused now.
    ///
    /// # Errors
    /// As [`Store::remove`].
    pub fn may_remove(&self, space: &Space, key: &str) -> Result<Snapshot> {
        self.metadata().read(|view| {
            let snapshot = require(view.find(space, key)?, key)?;
            lifecycle::may_remove(&snapshot, view.has_children(snapshot.id)?)?;
            Ok(snapshot)
        })
    }

    /// What is known of a snapshot.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`].
    pub fn stat(&self, space: &Space, key: &str) -> Result<Snapshot> {
        self.metadata().read(|view| require(view.find(space, key)?, key))
    }

    /// The snapshot of that number, if there is one.
    ///
    /// # Errors
    /// [`Error::Metadata`].
    pub fn by_id(&self, id: u64) -> Result<Option<Snapshot>> {
        self.metadata().read(|view| view.snapshot_if_any(id))
    }

    /// Changes labels; see [`lifecycle::updated_labels`].
    ///
    /// # Errors
    /// [`Error::NoSnapshot`], [`Error::ImmutableField`].
    pub fn update(&self, space: &Space, key: &str, labels: &Labels, fields: &[String]) -> Result<Snapshot> {
        self.metadata().write(|change| {
            let mut snapshot = require(change.find(space, key)?, key)?;
            snapshot.labels = lifecycle::updated_labels(&snapshot.labels, labels, fields)?;
            snapshot.updated = SystemTime::now();
            change.put(&snapshot)?;
            Ok(snapshot)
        })
    }

    /// All snapshots of a space, in the order of their making.
    ///
    /// # Errors
    /// [`Error::Metadata`].
    pub fn list(&self, space: &Space) -> Result<Vec<Snapshot>> {
        self.metadata().read(|view| view.list(Some(space)))
    }

    /// The snapshot below.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn parent(&self, snapshot: &Snapshot) -> Result<Option<Snapshot>> {
        let Some(parent) = snapshot.parent else { return Ok(None) };
        self.metadata().read(|view| view.snapshot(parent).map(Some))
    }

    /// Every snapshot of every space.
    ///
    /// # Errors
    /// [`Error::Metadata`].
    pub fn list_all(&self) -> Result<Vec<Snapshot>> {
        self.metadata().read(|view| view.list(None))
    }

    /// The layers below a snapshot, topmost first; its own is not among them.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn lowers(&self, snapshot: &Snapshot) -> Result<Vec<PathBuf>> {
        let chain = self.metadata().read(|view| view.chain_of(snapshot.clone()))?;
        Ok(chain.iter().skip(1).map(|below| self.dirs().layer(below.content)).collect())
    }

    /// After a commit, and aside from whoever waits for it: brings the layer's files to the disk, and notes that and what they take
    /// with every committed snapshot that shows `content`: `known`, or what a walk finds.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Metadata`].
    pub fn settle(&self, content: u64, known: Option<Usage>) -> Result<()> {
        let path = self.dirs().layer(content);
        let layer = File::open(&path).map_err(Error::io("open", &path))?;
        rustix::fs::syncfs(&layer).map_err(Error::io("sync", &path))?;
        let usage = known.map_or_else(|| usage::count(&path), Ok)?;
        self.metadata().write(|change| {
            for mut snapshot in change.with_content(content)? {
                if snapshot.kind == Kind::Committed {
                    snapshot.usage = Some(usage);
                    snapshot.unsynced = None;
                    change.put(&snapshot)?;
                }
            }
            Ok(())
        })
    }

    /// Deletes a directory whose record is gone, or never came. What cannot be deleted is an orphan for the next opening.
    pub(super) fn discard(&self, content: u64) {
        if let Err(error) = self.dirs().remove_content(content) {
            tracing::warn!(content, %error, "left for the next start");
        }
    }
}

/// Which boot this is.
///
/// # Errors
/// [`Error::Io`] without /proc.
pub fn boot() -> Result<String> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    Ok(std::fs::read_to_string(path).map_err(Error::io("read", path))?.trim().to_owned())
}

impl Snapshot {
    /// Whether the machine went down before its files were known to be on disk.
    ///
    /// # Errors
    /// [`Error::Io`] without /proc.
    pub fn is_doubtful(&self) -> Result<bool> {
        Ok(match &self.unsynced {
            Some(committed) => *committed != boot()?,
            None => false,
        })
    }
}

fn require(found: Option<Snapshot>, key: &str) -> Result<Snapshot> {
    found.ok_or_else(|| Error::NoSnapshot { key: key.to_owned() })
}

/// Deletes the record; answers the content that nothing shows any more.
pub(super) fn delete(change: &Change, snapshot: &Snapshot) -> Result<Option<u64>> {
    change.delete(snapshot)?;
    Ok((!change.is_content_used(snapshot.content)?).then_some(snapshot.content))
}
