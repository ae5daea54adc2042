//! Deleting what nothing refers to.
//!
//! Owns the order: mark from the images, then sweep. Must not touch snapshots that containerd or a container made. Invariant:
//! what an image, a child snapshot or a lease refers to at any moment of a prune outlives it.

use super::leases::{LeaseTable, PruneUnderWay};
use super::{Store, snapshots};
use crate::digest::{ChainId, Digest};
use crate::error::{Error, Result};
use crate::snapshot::gc::{self, DOCUMENT_BYTES_MAX};
use crate::snapshot::{Kind, Snapshot, Space};
use std::collections::{HashMap, HashSet};
use std::fs;

/// What a prune deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Unpacked layers.
    pub layers: u64,
    /// Blobs.
    pub blobs: u64,
    /// Bytes that both took.
    pub bytes: u64,
    /// Those of the blobs.
    pub blob_bytes: u64,
}

#[derive(Debug, Default)]
struct Live {
    blobs: HashSet<Digest>,
    chains: HashSet<ChainId>,
}

impl Live {
    /// Whether a snapshot is a layer that no image and no lease refers to; it may still have children.
    fn is_dead(&self, layer: &Snapshot, pinned: &LeaseTable) -> bool {
        layer.kind == Kind::Committed
            && layer.space == Space::lamina()
            && layer.chain_id.is_some_and(|chain| {
                layer.key == chain.to_string() && !self.chains.contains(&chain) && !pinned.is_chain_pinned(&chain)
            })
    }
}

impl Store {
    /// Deletes layers and blobs that no image, no snapshot and no lease refers to.
    ///
    /// # Errors
    /// [`Error::NoBlob`] if the manifest of an image is missing, for then nobody knows what it refers to; [`Error::Io`].
    pub fn prune(&self) -> Result<Pruned> {
        let _under_way = PruneUnderWay::begin(self);
        let live = self.mark()?;
        let mut pruned = Pruned::default();
        self.sweep_layers(&live, &mut pruned)?;
        self.sweep_blobs(&live, &mut pruned)?;
        Ok(pruned)
    }

    /// What [`Store::prune`] would delete now.
    ///
    /// # Errors
    /// As [`Store::prune`].
    pub fn prunable(&self) -> Result<Pruned> {
        let live = self.mark()?;
        let mut pruned = Pruned::default();
        let pinned = self.pinned();
        let snapshots = self.list_all()?;
        let mut waiting: Vec<&Snapshot> = snapshots.iter().filter(|layer| live.is_dead(layer, &pinned)).collect();
        let mut left: HashMap<u64, &Snapshot> = snapshots.iter().map(|snapshot| (snapshot.id, snapshot)).collect();
        loop {
            let parents: HashSet<u64> = left.values().filter_map(|snapshot| snapshot.parent).collect();
            let (going, kept): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|layer| !parents.contains(&layer.id));
            for layer in &going {
                left.remove(&layer.id);
                pruned.layers += 1;
                if !left.values().any(|other| other.content == layer.content) {
                    pruned.bytes += layer.usage.unwrap_or_default().size;
                }
            }
            if going.is_empty() || kept.is_empty() {
                break;
            }
            waiting = kept;
        }
        for blob in self.blobs()? {
            if !live.blobs.contains(&blob.digest) && !pinned.is_blob_pinned(&blob.digest) {
                pruned.blobs += 1;
                pruned.bytes += blob.size;
                pruned.blob_bytes += blob.size;
            }
        }
        Ok(pruned)
    }

    fn mark(&self) -> Result<Live> {
        let mut live = Live::default();
        let mut manifests = Vec::new();
        for image in self.images()? {
            // One that was forgotten since the listing has let go of its manifest to another prune.
            if self.blob(&image.manifest)?.is_none() && self.image(&image.reference).is_ok_and(|now| now == image) {
                return Err(Error::NoBlob { digest: image.manifest.to_string() });
            }
            manifests.push(image.manifest);
        }
        while let Some(manifest) = manifests.pop() {
            if !live.blobs.insert(manifest) {
                continue;
            }
            // Of an index, as a rule only the own platform is there.
            let Some(document) = self.document(&manifest)? else { continue };
            let references = gc::references(&document);
            manifests.extend(references.manifests);
            live.blobs.extend(references.blobs);
            for config in references.configs {
                live.blobs.insert(config);
                live.chains.extend(self.document(&config)?.map(|text| gc::chains(&text)).unwrap_or_default());
            }
        }
        Ok(live)
    }

    /// The text of a blob, if it is there and of a size that a document can have.
    fn document(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        match self.blob(digest)? {
            Some(blob) if blob.size <= DOCUMENT_BYTES_MAX => {
                fs::read(&blob.path).map(Some).map_err(Error::io("read", &blob.path))
            }
            _ => Ok(None),
        }
    }

    /// From the top down, as a layer goes once no child is left. Records first, in one transaction that no pin can slip into.
    fn sweep_layers(&self, live: &Live, pruned: &mut Pruned) -> Result<()> {
        let mut contents = Vec::new();
        {
            let pinned = self.pinned();
            let dead = |layer: &Snapshot| live.is_dead(layer, &pinned);
            let mut waiting: Vec<Snapshot> = self.list(&Space::lamina())?.into_iter().filter(dead).collect();
            if waiting.is_empty() {
                return Ok(());
            }
            self.metadata().write(|change| {
                loop {
                    let before = waiting.len();
                    let mut kept = Vec::new();
                    for layer in waiting.drain(..) {
                        if change.has_children(layer.id)? {
                            kept.push(layer);
                            continue;
                        }
                        pruned.layers += 1;
                        if let Some(content) = snapshots::delete(change, &layer)? {
                            pruned.bytes += layer.usage.unwrap_or_default().size;
                            contents.push(content);
                        }
                    }
                    waiting = kept;
                    if waiting.len() == before || waiting.is_empty() {
                        return Ok(());
                    }
                }
            })?;
        }
        contents.into_iter().for_each(|content| self.discard(content));
        Ok(())
    }

    fn sweep_blobs(&self, live: &Live, pruned: &mut Pruned) -> Result<()> {
        for blob in self.blobs()? {
            // Held over the deletion, so that whoever pins next looks after it.
            let pinned = self.pinned();
            if live.blobs.contains(&blob.digest) || pinned.is_blob_pinned(&blob.digest) {
                continue;
            }
            fs::remove_file(&blob.path).map_err(Error::io("delete", &blob.path))?;
            pruned.blobs += 1;
            pruned.bytes += blob.size;
            pruned.blob_bytes += blob.size;
        }
        Ok(())
    }
}
