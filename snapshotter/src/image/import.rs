//! A plain tar of a root filesystem becomes an image of one layer.
//!
//! Invariant: as with every image: it is recorded when its layer was unpacked and has the DiffId that it says.

use super::docker::{descriptor, manifest, store_text};
use super::document::{Image, MANIFEST, layer_type};
use super::error::ImageError;
use super::layout::{LoadOptions, Loaded};
use super::reference::Reference;
use super::unpack::unpack;
use crate::digest::Digest;
use crate::store::{ImageRecord, Store};
use lamina_fs::layer::read_blob;
use oci_spec::image::MediaType;
use serde_json::json;
use std::io::{self, Read, Write};
use std::time::SystemTime;

/// Makes an image called `name` of a root filesystem's tar, compressed or not, that can be read once only.
///
/// # Errors
/// What is wrong with the tar; then the store is as before.
pub fn import(
    store: &Store,
    input: impl Read + Send,
    name: &Reference,
    options: &LoadOptions<'_>,
) -> Result<Loaded, ImageError> {
    let outcome = import_or_leave(store, input, name, options);
    if outcome.is_err()
        && let Err(error) = store.prune()
    {
        tracing::warn!(%error, "what a failed import left stays until the next prune");
    }
    outcome
}

fn import_or_leave(
    store: &Store,
    input: impl Read + Send,
    name: &Reference,
    options: &LoadOptions<'_>,
) -> Result<Loaded, ImageError> {
    let lease = store.lease();
    let mut spool = store.spool_blob()?;
    let tee = Tee { input, out: &mut spool };
    let ((), digests) = read_blob(tee, options.unpack.expansion, &|_| (), |_| Ok::<_, io::Error>(()))?;
    let blob = spool.commit(&lease)?;
    let diff_id = Digest::from_bytes(digests.expanded);
    let platform = options.platform;
    let config = json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [diff_id.to_string()] },
        "history": [{ "created_by": "imported", "comment": "imported from a tar" }],
    });
    let config = store_text(store, &lease, config.to_string().as_bytes())?;
    let layer = descriptor(layer_type(digests.compression), &blob)?;
    let manifest = manifest(store, &lease, descriptor(MediaType::ImageConfig, &config)?, vec![layer])?;
    unpack(store, &lease, &Image::open(store, &manifest, platform)?, &options.unpack, options.progress)?;
    let (reference, media_type) = (name.to_string(), MANIFEST.to_owned());
    store.put_image(&ImageRecord { reference: reference.clone(), manifest, media_type, created: SystemTime::now() })?;
    Ok(Loaded { reference, manifest })
}

/// Keeps what passes.
struct Tee<'a, R, W> {
    input: R,
    out: &'a mut W,
}

impl<R: Read, W: Write> Read for Tee<'_, R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.out.write_all(&buffer[..read])?;
        Ok(read)
    }
}
