//! A directory of changes becomes a layer on top of an image, and both together another image.
//!
//! Owns the order: changeset, layer, configuration, manifest, name. Must not know containers. Invariants: one reading of the directory makes blob,
//! digest and unpacked layer; equal directories give equal layers; the new image is recorded when all of it is on disk.

use super::docker::{descriptor, manifest, store_text};
use super::document::{self, Image, MANIFEST};
use super::edit::Edit;
use super::error::ImageError;
use super::reference::Reference;
use super::unpack::{self, UnpackOptions};
use crate::digest::{ChainId, DiffId, Digest, Hasher};
use crate::store::{Begin, Blob, BlobSpool, ImageRecord, Lease, Store, UnnamedLayer};
use flate2::Compression;
use flate2::write::GzEncoder;
use lamina_fs::layer::{Applied, DiffError, Mountpoints, OverrideStat, apply, diff};
use oci_spec::image::MediaType;
use serde_json::{Value, json};
use std::io::{self, BufReader, BufWriter, PipeWriter, Write};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::time::SystemTime;

/// Bytes that are handed on at once.
const BUFFER_BYTES: usize = 256 << 10;

/// What is made of a directory.
#[derive(Debug)]
pub struct CommitOptions<'a> {
    /// What the directory lies on.
    pub base: &'a Image,
    /// The directory; nobody writes to it meanwhile.
    pub upper: &'a Path,
    /// Where the directory keeps its owners.
    pub owners: OverrideStat,
    /// What was made in it for mounts to stand on, which is no change.
    pub mountpoints: &'a Mountpoints,
    /// How the new layer is written.
    pub unpack: UnpackOptions,
    /// When, RFC 3339 in UTC.
    pub created: &'a str,
    /// By which command the changes were made.
    pub created_by: &'a str,
    /// Who is answerable.
    pub author: Option<&'a str>,
    /// What there is to say of it.
    pub message: Option<&'a str>,
    /// Changes of the configuration.
    pub edits: &'a [Edit],
    /// The new image's name; without one, `localhost/committed` with the beginning of its id as tag.
    pub name: Option<&'a Reference>,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The image's name.
    pub reference: Reference,
    /// The digest of its configuration: its id.
    pub id: Digest,
    /// The digest of the layer.
    pub diff_id: DiffId,
    /// Sockets, which no layer can hold.
    pub sockets_left_out: u64,
}

/// Makes an image of `base` and a directory of changes.
///
/// # Errors
/// What cannot be read or written; then the store is as before.
pub fn commit(store: &Store, options: &CommitOptions<'_>) -> Result<Committed, ImageError> {
    let outcome = commit_or_leave(store, options);
    if outcome.is_err()
        && let Err(error) = store.prune()
    {
        tracing::warn!(%error, "what a failed commit left stays until the next prune");
    }
    outcome
}

fn commit_or_leave(store: &Store, options: &CommitOptions<'_>) -> Result<Committed, ImageError> {
    let lease = store.lease();
    let base = options.base;
    base.layers.iter().for_each(|layer| {
        lease.pin_layer(&layer.chain_id);
        lease.pin_blob(&layer.blob);
    });
    let unnamed = store.begin_unnamed_layer()?;
    let written = write_layer(store, &lease, options, &unnamed)?;
    let chain = ChainId::of(base.chain().as_ref(), &written.diff_id);
    lease.pin_layer(&chain);
    if let Begin::Staging(staging) = unnamed.name(chain, base.chain().as_ref())? {
        let root = unpack::open(&staging.path())?;
        let top = unpack::Top::Yes;
        unpack::finish(staging, &root, &written.applied, &written.diff_id, options.unpack.apply.owners, top)?;
    }
    let id = store_text(store, &lease, configuration(store, options, &written.diff_id)?.to_string().as_bytes())?;
    let mut layers = base.manifest.layers().clone();
    layers.push(descriptor(MediaType::ImageLayerGzip, &written.blob)?);
    let manifest = manifest(store, &lease, descriptor(MediaType::ImageConfig, &id)?, layers)?;
    let reference = match options.name {
        Some(name) => name.clone(),
        None => format!("localhost/committed:{}", &id.digest.hex()[..12]).parse()?,
    };
    let (media_type, created) = (MANIFEST.to_owned(), SystemTime::now());
    store.put_image(&ImageRecord { reference: reference.to_string(), manifest, media_type, created })?;
    let sockets_left_out = written.sockets_left_out;
    Ok(Committed { reference, id: id.digest, diff_id: written.diff_id, sockets_left_out })
}

struct Written {
    blob: Blob,
    diff_id: DiffId,
    applied: Applied,
    sockets_left_out: u64,
}

/// Reads the directory once: the changeset is hashed, compressed into a blob, and by another thread unpacked into the new layer.
fn write_layer(
    store: &Store,
    lease: &Lease,
    options: &CommitOptions<'_>,
    unnamed: &UnnamedLayer,
) -> Result<Written, ImageError> {
    let upper = unpack::open(options.upper)?;
    let root = unpack::open(&unnamed.path())?;
    let (reading, writing) = io::pipe().map_err(ImageError::write("a pipe"))?;
    let spool = store.spool_blob()?;
    let apply_options = options.unpack.apply;
    let (written, applied) = std::thread::scope(|scope| {
        let input = BufReader::with_capacity(BUFFER_BYTES, reading);
        let applying = scope.spawn(move || apply(root.as_fd(), input, &apply_options));
        // The writing end goes with it, so that the other thread meets the end.
        let written = changeset(upper.as_fd(), options, spool, writing);
        (written, applying.join())
    });
    let what = || options.upper.display().to_string();
    let applied = applied.map_err(|_| ImageError::Thread)?.map_err(|cause| ImageError::Layer { layer: what(), cause });
    let (spool, hasher, sockets_left_out) = match (written, &applied) {
        (Ok(written), _) => written,
        // Whoever stopped reading has said why.
        (Err(DiffError::Write { error, .. }), Err(_)) if error.kind() == io::ErrorKind::BrokenPipe => {
            return Err(applied.err().unwrap_or(ImageError::Thread));
        }
        (Err(cause), _) => return Err(ImageError::Changeset { what: what(), cause }),
    };
    let applied = applied?;
    let blob = spool.commit(lease)?;
    Ok(Written { blob, diff_id: hasher.finish().into(), applied, sockets_left_out })
}

/// Writes the changeset to all that want it; answers the blob that is not published yet, the digest of the content, and how many sockets were
/// left out.
fn changeset(
    upper: BorrowedFd<'_>,
    options: &CommitOptions<'_>,
    spool: BlobSpool,
    pipe: PipeWriter,
) -> Result<(BlobSpool, Hasher, u64), DiffError> {
    let blob = GzEncoder::new(spool, Compression::fast());
    let mut tee = BufWriter::with_capacity(BUFFER_BYTES, Tee { blob, hasher: Hasher::default(), pipe });
    let diffed = diff(upper, options.owners, options.mountpoints, &mut tee)?;
    let failed = |error| DiffError::Write { path: "/".into(), error };
    let Tee { blob, hasher, .. } = tee.into_inner().map_err(|error| failed(error.into_error()))?;
    Ok((blob.finish().map_err(failed)?, hasher, diffed.sockets_left_out))
}

struct Tee {
    blob: GzEncoder<BlobSpool>,
    hasher: Hasher,
    pipe: PipeWriter,
}

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pipe.write_all(bytes)?;
        self.blob.write_all(bytes)?;
        self.hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The configuration of the new image: that of the base with one layer and one step more, and everything else as it is.
fn configuration(store: &Store, options: &CommitOptions<'_>, diff_id: &DiffId) -> Result<Value, ImageError> {
    let what = format!("configuration {}", options.base.config_digest);
    let broken = |cause: &str| ImageError::BadDocument { what: what.clone(), cause: cause.to_owned() };
    let text = document::read(store, &options.base.config_digest)?;
    let mut document: Value = document::parse(&what, &text)?;
    let whole = document.as_object_mut().ok_or_else(|| broken("it is no object"))?;
    let config = whole.entry("config").or_insert(Value::Null);
    if config.is_null() {
        *config = json!({});
    }
    let config = config.as_object_mut().ok_or_else(|| broken("config is no object"))?;
    options.edits.iter().for_each(|edit| edit.apply(config));
    whole.insert("created".into(), json!(options.created));
    if let Some(author) = options.author {
        whole.insert("author".into(), json!(author));
    }
    // What an old docker noted of the container that the base was made of.
    ["container", "container_config", "id", "parent"].iter().for_each(|key| drop(whole.remove(*key)));
    let mut step = json!({ "created": options.created, "created_by": options.created_by });
    for (key, value) in [("author", options.author), ("comment", options.message)] {
        if let (Some(value), Some(step)) = (value, step.as_object_mut()) {
            step.insert(key.into(), json!(value));
        }
    }
    let history = whole.entry("history").or_insert(json!([]));
    history.as_array_mut().ok_or_else(|| broken("history is no list"))?.push(step);
    let layers = whole.get_mut("rootfs").and_then(|rootfs| rootfs.get_mut("diff_ids")).and_then(Value::as_array_mut);
    layers.ok_or_else(|| broken("rootfs.diff_ids is no list"))?.push(json!(diff_id.to_string()));
    Ok(document)
}
