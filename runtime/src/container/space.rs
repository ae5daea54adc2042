//! What images and containers take on disk.
//!
//! Owns the sums. Invariant: each directory and blob of the store is counted in exactly one row, so that the rows add up to the total; what several
//! images share is counted once there, and told apart beside each image.

use super::error::Result;
use super::list::Containers;
use lamina_snapshotter::digest::Digest;
use lamina_snapshotter::image::{Reference, operations};
use lamina_snapshotter::snapshot::{self, Kind, Snapshot, usage};
use lamina_snapshotter::store::{Pruned, Store};
use std::collections::{HashMap, HashSet};

/// Digits of an id that people see.
const SHOWN_DIGITS: usize = 12;

/// Some files of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Row {
    /// How many there are.
    pub total: usize,
    /// How many of them an image or a container refers to.
    pub active: usize,
    /// What all take, in bytes.
    pub bytes: u64,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSpace {
    /// Its name.
    pub name: String,
    /// The beginning of its id.
    pub id: String,
    /// Its unpacked layers, in bytes.
    pub bytes: u64,
    /// Those of them that no other image has.
    pub unique_bytes: u64,
    /// Containers that were made of it.
    pub containers: usize,
}

impl ImageSpace {
    /// Layers that another image has too, in bytes.
    pub fn shared_bytes(&self) -> u64 {
        self.bytes - self.unique_bytes
    }
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSpace {
    /// The beginning of its ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its image, as the user named it.
    pub image: String,
    /// Its own layer, in bytes.
    pub bytes: u64,
    /// Whether it runs.
    pub runs: bool,
}

/// All of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// Unpacked layers.
    pub layers: Row,
    /// Blobs.
    pub blobs: Row,
    /// Images by name.
    pub images: Vec<ImageSpace>,
    /// Containers, the youngest first.
    pub containers: Vec<ContainerSpace>,
    /// What a prune would delete.
    pub prunable: Pruned,
}

impl Space {
    /// What a prune would free of layers, in bytes.
    pub fn layers_prunable(&self) -> u64 {
        self.prunable.bytes - self.prunable.blob_bytes
    }

    /// The containers' own layers, in bytes.
    pub fn container_bytes(&self) -> u64 {
        self.containers.iter().map(|container| container.bytes).sum()
    }

    /// Everything, in bytes.
    pub fn bytes(&self) -> u64 {
        self.layers.bytes + self.blobs.bytes + self.container_bytes()
    }
}

/// Counts. The layers of containers are walked, everything else is known.
///
/// # Errors
/// What cannot be read.
pub fn measure(store: &Store, containers: &Containers) -> Result<Space> {
    let found = containers.list()?;
    let mut own = Vec::new();
    for container in &found {
        let path = store.dirs().layer(container.record.content);
        // One that a removal left without its layer takes nothing.
        let bytes = if path.exists() { usage::count(&path)?.size } else { 0 };
        own.push(ContainerSpace {
            id: container.record.id.short().to_owned(),
            name: container.record.name.to_string(),
            image: container.record.image.clone(),
            bytes,
            runs: container.state()?.runs(),
        });
    }
    let mut users: HashMap<Digest, usize> = HashMap::new();
    found.iter().for_each(|container| *users.entry(container.record.image_id).or_default() += 1);

    let prunable = store.prunable()?;
    let mut layers = Row::default();
    let mut contents = HashSet::new();
    let is_layer =
        |snapshot: &Snapshot| snapshot.kind == Kind::Committed && snapshot.space != snapshot::Space::containers();
    for layer in store.list_all()?.into_iter().filter(is_layer) {
        if contents.insert(layer.content) {
            layers.total += 1;
            layers.bytes += layer.usage.unwrap_or_default().size;
        }
    }
    layers.active = layers.total - (prunable.layers as usize).min(layers.total);
    let mut blobs = Row::default();
    for blob in store.blobs()? {
        blobs.total += 1;
        blobs.bytes += blob.size;
    }
    blobs.active = blobs.total - (prunable.blobs as usize).min(blobs.total);
    let images = images(store, &users)?;
    Ok(Space { layers, blobs, images, containers: own, prunable })
}

fn images(store: &Store, users: &HashMap<Digest, usize>) -> Result<Vec<ImageSpace>> {
    let mut opened = Vec::new();
    // A layer is shared if another image has it: one with two names does not share with itself.
    let mut owners: HashMap<u64, HashSet<Digest>> = HashMap::new();
    for record in store.images()? {
        let image = operations::open(store, &record)?;
        let mut layers = Vec::new();
        for layer in &image.layers {
            let Some(unpacked) = store.layer(&layer.chain_id)? else { continue };
            owners.entry(unpacked.content).or_default().insert(image.config_digest);
            layers.push((unpacked.content, unpacked.usage.unwrap_or_default().size));
        }
        opened.push((record.reference, image.config_digest, layers));
    }
    let space = |(reference, id, layers): (String, Digest, Vec<(u64, u64)>)| {
        let is_unique = |content: &u64| owners.get(content).is_some_and(|owners| owners.len() == 1);
        let sum = |unique: bool| {
            layers.iter().filter(|(content, _)| !unique || is_unique(content)).map(|(_, size)| size).sum()
        };
        ImageSpace {
            name: reference.parse::<Reference>().map_or(reference, |name| name.familiar()),
            id: id.hex()[..SHOWN_DIGITS].to_owned(),
            bytes: sum(false),
            unique_bytes: sum(true),
            containers: users.get(&id).copied().unwrap_or(0),
        }
    };
    Ok(opened.into_iter().map(space).collect())
}
