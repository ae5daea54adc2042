//! Layers of images: committed snapshots of Lamina's own space, named by their chain.
//!
//! Owns how a layer arrives. Must not know tar. Invariant: a chain is recorded once its directory is whole; two threads never
//! unpack one chain.

use super::Store;
use super::metadata::Change;
use crate::digest::{ChainId, DiffId};
use crate::error::{Error, Result};
use crate::snapshot::{Kind, Labels, Snapshot, Space, Usage};
use std::path::PathBuf;
use std::time::SystemTime;

/// What [`Store::begin_layer`] found.
#[derive(Debug)]
pub enum Begin {
    /// The chain is there already.
    Present(Snapshot),
    /// It is yours to unpack.
    Staging(LayerStaging),
}

impl Store {
    /// The layer on top of that chain, if Lamina's own space has it.
    ///
    /// # Errors
    /// [`Error::Metadata`].
    pub fn layer(&self, chain: &ChainId) -> Result<Option<Snapshot>> {
        self.metadata().read(|view| view.find(&Space::lamina(), &chain.to_string()))
    }

    /// Begins to unpack the layer on top of `chain`, whose parent is `parent`. Waits while another thread unpacks it. The
    /// parent need not be there before [`LayerStaging::commit`], so that the layers of an image can be unpacked side by side.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Metadata`].
    pub fn begin_layer(&self, chain: ChainId, parent: Option<&ChainId>) -> Result<Begin> {
        self.shared.layers_under_way.take(chain);
        let begun = self.layer(&chain).and_then(|present| match present {
            Some(layer) => Ok(Begin::Present(layer)),
            None => self.adopt_or_stage(chain, parent.copied()),
        });
        if !matches!(begun, Ok(Begin::Staging(_))) {
            self.shared.layers_under_way.free(&chain);
        }
        begun
    }

    /// Begins a layer whose content, and so whose name, is known only at its end.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn begin_unnamed_layer(&self) -> Result<UnnamedLayer> {
        let id = self.new_id();
        // Whatever fails, the directory goes with it.
        let layer = UnnamedLayer { store: self.clone(), id, named: false };
        self.dirs().make_content(id, false)?;
        Ok(layer)
    }

    fn adopt_or_stage(&self, chain: ChainId, parent: Option<ChainId>) -> Result<Begin> {
        if let Some(layer) = self.adopt_chain(&Space::lamina(), &chain.to_string(), parent, &chain, Labels::new())? {
            return Ok(Begin::Present(layer));
        }
        let id = self.new_id();
        if let Err(error) = self.dirs().make_content(id, false) {
            self.discard(id);
            return Err(error);
        }
        Ok(Begin::Staging(LayerStaging { store: self.clone(), id, chain, parent, published: false }))
    }

    /// If another space has unpacked `chain`, shows its layer in this one too: nothing is copied.
    fn adopt_chain(
        &self,
        space: &Space,
        name: &str,
        parent: Option<ChainId>,
        chain: &ChainId,
        labels: Labels,
    ) -> Result<Option<Snapshot>> {
        let nothing = self.metadata().read(|view| Ok(view.with_chain(&chain.to_string())?.is_empty()))?;
        if nothing {
            return Ok(None);
        }
        let id = self.new_id();
        self.metadata().write(|change| {
            let Some(found) = change.with_chain(&chain.to_string())?.into_iter().next() else { return Ok(None) };
            let below = match &parent {
                None => None,
                Some(parent) => match change.find(space, &parent.to_string())? {
                    Some(below) => Some(below),
                    // Adopted one by one from the bottom: a gap means that this one must be unpacked.
                    None => return Ok(None),
                },
            };
            let alias = alias(found, id, space, name, below, labels);
            change.insert(&alias)?;
            Ok(Some(alias))
        })
    }

    /// Shows a chain that any space has in `space`, as a committed snapshot on `parent` (empty for none) with these labels; nothing
    /// is copied. Answers one that is there already, or none if the chain is not known, or not on such a parent.
    ///
    /// # Errors
    /// [`Error::Metadata`].
    pub fn adopt(&self, space: &Space, parent: &str, chain: &ChainId, labels: Labels) -> Result<Option<Snapshot>> {
        let known = self.metadata().read(|view| view.with_chain(&chain.to_string()))?;
        let fits = |known: &&Snapshot| known.space == *space && known.parent_key == parent && known.labels == labels;
        if known.is_empty() || known.iter().any(|known| fits(&known)) {
            return Ok(known.iter().find(fits).cloned());
        }
        let id = self.new_id();
        self.metadata().write(|change| adopt(change, id, space, parent, chain, labels))
    }
}

fn adopt(
    change: &Change,
    id: u64,
    space: &Space,
    parent: &str,
    chain: &ChainId,
    labels: Labels,
) -> Result<Option<Snapshot>> {
    let below = match parent {
        "" => None,
        key => match change.find(space, key)? {
            // Without a chain nobody knows what it is.
            Some(below) if below.kind == Kind::Committed && below.chain_id.is_some() => Some(below),
            _ => return Ok(None),
        },
    };
    let below_chain = below.as_ref().and_then(|below| below.chain_id);
    for found in change.with_chain(&chain.to_string())? {
        let own_below = found.parent.map(|id| change.snapshot(id)).transpose()?;
        if own_below.is_some() != below.is_some() || own_below.and_then(|below| below.chain_id) != below_chain {
            continue;
        }
        let mut name = chain.to_string();
        if change.find(space, &name)?.is_some() {
            name = format!("{chain}-{id}");
        }
        let alias = alias(found, id, space, &name, below, labels);
        change.insert(&alias)?;
        return Ok(Some(alias));
    }
    Ok(None)
}

fn alias(found: Snapshot, id: u64, space: &Space, name: &str, below: Option<Snapshot>, labels: Labels) -> Snapshot {
    let now = SystemTime::now();
    Snapshot {
        id,
        space: space.clone(),
        key: name.to_owned(),
        parent: below.as_ref().map(|below| below.id),
        parent_key: below.map_or(String::new(), |below| below.key),
        labels,
        created: now,
        updated: now,
        ..found
    }
}

/// A layer that has no name yet. Dropped without [`UnnamedLayer::name`] it leaves nothing.
#[derive(Debug)]
pub struct UnnamedLayer {
    store: Store,
    id: u64,
    named: bool,
}

impl UnnamedLayer {
    /// The empty directory to write into. It does not move.
    pub fn path(&self) -> PathBuf {
        self.store.dirs().layer(self.id)
    }

    /// Names it, when all of it is written. Waits while another thread unpacks that chain; if it is present then, what was written goes.
    ///
    /// # Errors
    /// [`Error::Metadata`].
    pub fn name(mut self, chain: ChainId, parent: Option<&ChainId>) -> Result<Begin> {
        let store = self.store.clone();
        store.shared.layers_under_way.take(chain);
        let answer = match store.layer(&chain) {
            Ok(None) => {
                self.named = true;
                let parent = parent.copied();
                return Ok(Begin::Staging(LayerStaging { store, id: self.id, chain, parent, published: false }));
            }
            Ok(Some(layer)) => Ok(Begin::Present(layer)),
            Err(error) => Err(error),
        };
        store.shared.layers_under_way.free(&chain);
        answer
    }
}

impl Drop for UnnamedLayer {
    fn drop(&mut self) {
        if !self.named {
            self.store.discard(self.id);
        }
    }
}

/// A layer on its way in. Dropped without [`LayerStaging::commit`] it leaves nothing.
#[derive(Debug)]
pub struct LayerStaging {
    store: Store,
    id: u64,
    chain: ChainId,
    parent: Option<ChainId>,
    published: bool,
}

impl LayerStaging {
    /// The empty directory to unpack into. It does not move at the commit.
    pub fn path(&self) -> PathBuf {
        self.store.dirs().layer(self.id)
    }

    /// Where the index of the chain may be written, at any time before the commit.
    pub fn index_path(&self) -> PathBuf {
        self.store.dirs().index(self.id)
    }

    /// The layers below, topmost first.
    ///
    /// # Errors
    /// [`Error::NoLayer`] while the parent is not committed.
    pub fn lowers(&self) -> Result<Vec<PathBuf>> {
        let Some(parent) = self.parent else { return Ok(Vec::new()) };
        let Some(below) = self.store.layer(&parent)? else { return Err(Error::NoLayer { chain: parent.to_string() }) };
        let mut lowers = vec![self.store.dirs().layer(below.content)];
        lowers.extend(self.store.lowers(&below)?);
        Ok(lowers)
    }

    /// Publishes the layer by one transaction; its files are on disk when it returns.
    ///
    /// # Errors
    /// [`Error::WrongChain`], [`Error::NoLayer`] if the parent is not committed, [`Error::Io`]; then nothing is left.
    pub fn commit(mut self, diff_id: DiffId, usage: Usage) -> Result<Snapshot> {
        let expected = ChainId::of(self.parent.as_ref(), &diff_id);
        if expected != self.chain {
            return Err(Error::WrongChain {
                chain: self.chain.to_string(),
                diff: diff_id.to_string(),
                expected: expected.to_string(),
            });
        }
        let path = self.path();
        let directory = std::fs::File::open(&path).map_err(Error::io("open", &path))?;
        rustix::fs::syncfs(&directory).map_err(Error::io("sync", &path))?;
        let layer = self.store.metadata().write(|change| {
            let below = match &self.parent {
                None => None,
                Some(parent) => Some(
                    change
                        .find(&Space::lamina(), &parent.to_string())?
                        .ok_or_else(|| Error::NoLayer { chain: parent.to_string() })?,
                ),
            };
            let now = SystemTime::now();
            let layer = Snapshot {
                id: self.id,
                content: self.id,
                space: Space::lamina(),
                key: self.chain.to_string(),
                kind: Kind::Committed,
                parent: below.as_ref().map(|below| below.id),
                parent_key: below.map_or(String::new(), |below| below.key),
                labels: Labels::new(),
                created: now,
                updated: now,
                usage: Some(usage),
                unsynced: None,
                diff_id: Some(diff_id),
                chain_id: Some(self.chain),
            };
            change.insert(&layer)?;
            Ok(layer)
        })?;
        self.published = true;
        Ok(layer)
    }
}

impl Drop for LayerStaging {
    fn drop(&mut self) {
        if !self.published {
            self.store.discard(self.id);
        }
        self.store.shared.layers_under_way.free(&self.chain);
    }
}
