//! An image's blobs become layers of the store.
//!
//! Owns the threads: several layers at once, and within one reading, inflating, hashing and writing. Layers are committed from
//! the bottom up, as each needs its parent. Invariant: a layer is committed when its content has the DiffId that the image
//! says; else nothing of it is left.

use super::document::{Image, Layer};
use super::error::ImageError;
use super::progress::{Progress, Report, Stage};
use crate::digest::{DiffId, Digest};
use crate::error::Error;
use crate::snapshot::Usage;
use crate::store::{Begin, LayerStaging, Lease, Store};
use lamina_fs::layer::{Applied, ApplyOptions, Expansion, OverrideStat, apply, inherit, read_blob};
use lamina_fs::union::{Config, IdMap, IdPolicy, Squash, XattrPolicy, build_index};
use parking_lot::{Condvar, Mutex};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Layers that are unpacked at the same time, at most: each has threads of its own, and the disk is one.
const LAYERS_AT_ONCE_MAX: usize = 4;

/// How an image is unpacked.
#[derive(Debug, Clone, Copy)]
pub struct UnpackOptions {
    /// How layers are written.
    pub apply: ApplyOptions,
    /// How far a blob may expand.
    pub expansion: Expansion,
}

impl Default for UnpackOptions {
    /// Owners are the files' own for root, and kept in an attribute for anybody else.
    fn default() -> Self {
        let owners = if rustix::process::geteuid().is_root() { OverrideStat::Off } else { OverrideStat::User };
        let apply = ApplyOptions { owners, ..ApplyOptions::default() };
        UnpackOptions { apply, expansion: Expansion::default() }
    }
}

/// Where the blobs of an image's layers are read from.
pub trait Source: Sync {
    /// The blob of the layer at this place, bottom first, from its beginning.
    ///
    /// # Errors
    /// It is not there.
    fn open(&self, at: usize) -> Result<Box<dyn Read + Send + '_>, ImageError>;

    /// The layer at this place could not be unpacked: no reader needs to go on.
    fn refuse(&self, at: usize);
}

/// Blobs that are in the store.
struct Stored<'a> {
    store: &'a Store,
    image: &'a Image,
}

impl Source for Stored<'_> {
    fn open(&self, at: usize) -> Result<Box<dyn Read + Send + '_>, ImageError> {
        let blob = &self.image.layers[at].blob;
        let found = self.store.blob(blob)?.ok_or_else(|| Error::NoBlob { digest: blob.to_string() })?;
        Ok(Box::new(open(&found.path)?))
    }

    fn refuse(&self, _: usize) {}
}

/// Unpacks the layers that the store does not have; `lease` pins them, until the image is recorded. Its blobs must be there.
///
/// # Errors
/// What is wrong with a layer; the layers below it that were whole stay until a prune.
pub fn unpack(
    store: &Store,
    lease: &Lease,
    image: &Image,
    options: &UnpackOptions,
    progress: Progress<'_>,
) -> Result<(), ImageError> {
    unpack_from(&Stored { store, image }, store, lease, image, options, progress)
}

/// The same, with blobs from elsewhere, which may still be on their way.
///
/// # Errors
/// As of `unpack`.
pub fn unpack_from(
    source: &dyn Source,
    store: &Store,
    lease: &Lease,
    image: &Image,
    options: &UnpackOptions,
    progress: Progress<'_>,
) -> Result<(), ImageError> {
    image.layers.iter().for_each(|layer| lease.pin_layer(&layer.chain_id));
    if let Some(chain) = image.chain()
        && store.layer(&chain)?.is_some()
    {
        return Ok(());
    }
    let work = Work {
        source,
        store,
        image,
        options,
        progress,
        next: AtomicUsize::new(0),
        failed: AtomicBool::new(false),
        outcome: Mutex::new(Outcome { committed: vec![false; image.layers.len()], error: None }),
        changed: Condvar::new(),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(LAYERS_AT_ONCE_MAX);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(image.layers.len()) {
            scope.spawn(|| work.run());
        }
    });
    let outcome = work.outcome.into_inner();
    match outcome.error {
        Some(error) => Err(error),
        None if outcome.committed.iter().all(|committed| *committed) => Ok(()),
        None => Err(ImageError::Thread),
    }
}

struct Work<'a> {
    source: &'a dyn Source,
    store: &'a Store,
    image: &'a Image,
    options: &'a UnpackOptions,
    progress: Progress<'a>,
    next: AtomicUsize,
    failed: AtomicBool,
    outcome: Mutex<Outcome>,
    changed: Condvar,
}

struct Outcome {
    committed: Vec<bool>,
    error: Option<ImageError>,
}

impl Work<'_> {
    /// Takes layers from the bottom up, so that whoever waits for a parent waits for one that is being worked on.
    fn run(&self) {
        loop {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(layer) = self.image.layers.get(at).filter(|_| !self.failed.load(Ordering::Relaxed)) else {
                return;
            };
            // A panic would leave the others waiting.
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.layer(at, layer)));
            let done = done.unwrap_or(Err(ImageError::Thread));
            let mut outcome = self.outcome.lock();
            match done {
                Ok(committed) => outcome.committed[at] = committed,
                Err(error) => {
                    // The others fail of these two, and must not be taken for the cause.
                    outcome.error.get_or_insert(error);
                    self.source.refuse(at);
                    self.failed.store(true, Ordering::Relaxed);
                }
            }
            drop(outcome);
            self.changed.notify_all();
        }
    }

    /// Whether the layer is in the store then: not where something below it failed.
    fn layer(&self, at: usize, layer: &Layer) -> Result<bool, ImageError> {
        let parent = at.checked_sub(1).map(|below| self.image.layers[below].chain_id);
        let (blob, stage) = (layer.blob, Stage::Unpack);
        (self.progress)(Report::Begin { blob, stage, bytes: Some(layer.size) });
        if let Begin::Staging(staging) = self.store.begin_layer(layer.chain_id, parent.as_ref())? {
            let root = open(&staging.path())?;
            let applied = self.write(at, layer, &root)?;
            if !self.parent_is_committed(at) {
                // Whoever failed has said why.
                return Ok(false);
            }
            self.finish(at, layer, staging, &root, &applied)?;
        }
        (self.progress)(Report::End { blob, stage });
        Ok(true)
    }

    fn write(&self, at: usize, layer: &Layer, root: &File) -> Result<Applied, ImageError> {
        let name = layer.blob.to_string();
        let input = Cancellable { input: self.source.open(at)?, failed: &self.failed };
        let (blob, stage) = (layer.blob, Stage::Unpack);
        let report = |bytes| (self.progress)(Report::Advance { blob, stage, bytes });
        let (applied, digests) = read_blob(input, self.options.expansion, &report, |content| {
            apply(root.as_fd(), content, &self.options.apply)
                .map_err(|cause| ImageError::Layer { layer: name.clone(), cause })
        })?;
        let stored = Digest::from_bytes(digests.stored);
        if stored != layer.blob {
            return Err(Error::WrongDigest { expected: name, found: stored.to_string() }.into());
        }
        let found = Digest::from_bytes(digests.expanded);
        match found == *layer.diff_id.digest() {
            true => Ok(applied),
            false => {
                let (expected, found) = (layer.diff_id.to_string(), found.to_string());
                Err(ImageError::WrongDiffId { layer: name, expected, found })
            }
        }
    }

    /// Waits until it is; `false` where that will not be, because something failed.
    fn parent_is_committed(&self, at: usize) -> bool {
        let Some(parent) = at.checked_sub(1) else { return true };
        let mut outcome = self.outcome.lock();
        while !outcome.committed[parent] && outcome.error.is_none() {
            self.changed.wait(&mut outcome);
        }
        outcome.committed[parent]
    }

    fn finish(
        &self,
        at: usize,
        layer: &Layer,
        staging: LayerStaging,
        root: &File,
        applied: &Applied,
    ) -> Result<(), ImageError> {
        let top = if at + 1 == self.image.layers.len() { Top::Yes } else { Top::No };
        finish(staging, root, applied, &layer.diff_id, self.options.apply.owners, top)
    }
}

/// Whether a layer is the top of an image: then it gets the index of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Top {
    Yes,
    No,
}

/// Publishes a layer whose changeset is written and whose parents are committed.
pub(super) fn finish(
    staging: LayerStaging,
    root: &File,
    applied: &Applied,
    diff_id: &DiffId,
    owners: OverrideStat,
    top: Top,
) -> Result<(), ImageError> {
    let lowers = staging.lowers()?;
    if !applied.implicit.is_empty() {
        let parents = lowers.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
        let parents: Vec<_> = parents.iter().map(AsFd::as_fd).collect();
        inherit(root.as_fd(), &applied.implicit, &parents, owners)
            .map_err(|cause| ImageError::Layer { layer: diff_id.to_string(), cause })?;
    }
    if top == Top::Yes {
        let layers = std::iter::once(staging.path()).chain(lowers).collect();
        let config = index_config(layers, owners);
        // Without an index a mount is slower and shows the same.
        if let Err(error) = build_index(&config, &staging.index_path(), |_| ()) {
            tracing::warn!(diff = %diff_id, %error, "the image has no index");
        }
    }
    let usage = Usage { size: applied.usage.bytes, inodes: applied.usage.inodes };
    staging.commit(*diff_id, usage)?;
    Ok(())
}

/// The layers as a mount of the image has them.
fn index_config(lowers: Vec<std::path::PathBuf>, owners: OverrideStat) -> Config {
    Config {
        lowers,
        upper: None,
        ids: IdPolicy { uids: IdMap::identity(), gids: IdMap::identity(), squash: Squash::None },
        xattrs: XattrPolicy { enabled: true, override_stat: owners },
        static_nlink: false,
        sync: true,
        volatile: false,
        force_dot_whiteouts: false,
        index: None,
        acl: true,
        descriptors_max: 64,
    }
}

pub(super) fn open(path: &std::path::Path) -> Result<File, ImageError> {
    File::open(path).map_err(ImageError::read(path.display().to_string()))
}

/// Ends early once another layer has failed.
struct Cancellable<'a> {
    input: Box<dyn Read + Send + 'a>,
    failed: &'a AtomicBool,
}

impl Read for Cancellable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.failed.load(Ordering::Relaxed) {
            true => Err(io::Error::other("another layer of the image failed")),
            false => self.input.read(buffer),
        }
    }
}
