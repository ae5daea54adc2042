//! Images come from a registry.
//!
//! Owns going on where a download was cut. Invariant: an image is recorded when every document and blob had its digest and
//! every layer its DiffId.

use super::client::{Access, Client, TRIES, Transport, authorized};
use super::error::RegistryError;
use crate::digest::Digest;
use crate::error::Error;
use crate::image::docker::store_text;
use crate::image::document::{self, DOCKER_INDEX, DOCKER_MANIFEST, INDEX, Image, Kind, MANIFEST};
use crate::image::error::ImageError;
use crate::image::layout::{LoadOptions, Loaded};
use crate::image::progress::{Progress, Report, Stage};
use crate::image::reference::Reference;
use crate::image::unpack::unpack;
use crate::snapshot::gc::DOCUMENT_BYTES_MAX;
use crate::store::{BeginBlob, BlobStaging, ImageRecord, Lease, Store};
use oci_spec::image::ImageManifest;
use parking_lot::Mutex;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;
use ureq::http::{StatusCode, header};

/// Blobs that are fetched at the same time.
const BLOBS_AT_ONCE: usize = 3;
/// Bytes that are read from a connection at once.
const READ_BYTES: usize = 128 << 10;

/// Fetches an image, unpacks and records it under its name, or that in the options.
///
/// # Errors
/// What went wrong, in a sentence. Where the registry or what it sent is at fault, nothing is left; whole blobs that came
/// before a connection broke for good stay for the next try, until a prune.
pub fn pull(
    store: &Store,
    reference: &Reference,
    transport: Transport,
    options: &LoadOptions<'_>,
) -> Result<Loaded, ImageError> {
    let outcome = pull_or_leave(store, reference, transport, options);
    if let Err(error) = &outcome
        && !is_connection(error)
        && let Err(error) = store.prune()
    {
        tracing::warn!(%error, "what a failed pull left stays until the next prune");
    }
    outcome
}

fn is_connection(error: &ImageError) -> bool {
    matches!(error, ImageError::Registry(RegistryError::Unreachable { .. } | RegistryError::Cut { .. }))
}

fn pull_or_leave(
    store: &Store,
    reference: &Reference,
    transport: Transport,
    options: &LoadOptions<'_>,
) -> Result<Loaded, ImageError> {
    let lease = store.lease();
    let client = Client::new(reference, transport, Access::Pull)?;
    let puller = Puller { store, client: &client, lease: &lease, progress: options.progress };
    let asked = match reference.digest() {
        Some(digest) => digest.to_string(),
        None => reference.tag().unwrap_or("latest").to_owned(),
    };
    let (root, media_type, text) = puller.document(&asked, reference.digest())?;
    let (chosen, text) = match document::kind(&root, &text)? {
        Kind::Manifest => (root, text),
        Kind::Index => {
            let chosen = document::choose(&document::parse(&format!("index {root}"), &text)?, options.platform)?;
            (chosen, puller.document(&chosen.to_string(), Some(&chosen))?.2)
        }
    };
    let manifest: ImageManifest = document::parse(&format!("manifest {chosen}"), &text)?;
    let config = manifest.config();
    document::check_size("the image's configuration", config.size())?;
    puller.blob(&document::of(config)?, config.size())?;
    let layers = manifest.layers().iter().map(|layer| Ok((document::of(layer)?, layer.size())));
    puller.blobs(&layers.collect::<Result<Vec<_>, ImageError>>()?)?;
    let image = Image::open(store, &root, options.platform)?;
    let (found, wanted) = (image.platform(), options.platform);
    if wanted.fit(&found.os, &found.architecture, found.variant.as_deref()).is_none() {
        let (wanted, found) = (wanted.to_string(), found.to_string());
        return Err(ImageError::OtherPlatform { wanted, found });
    }
    image.check_blobs(store)?;
    unpack(store, &lease, &image, &options.unpack, options.progress)?;
    let reference = options.name.unwrap_or(reference).to_string();
    let created = SystemTime::now();
    store.put_image(&ImageRecord { reference: reference.clone(), manifest: root, media_type, created })?;
    Ok(Loaded { reference, manifest: root })
}

struct Puller<'a> {
    store: &'a Store,
    client: &'a Client,
    lease: &'a Lease,
    progress: Progress<'a>,
}

impl Puller<'_> {
    /// A manifest or index: its digest, media type and text, which is stored.
    fn document(&self, asked: &str, expected: Option<&Digest>) -> Result<(Digest, String, Vec<u8>), ImageError> {
        let url = self.client.url(&format!("manifests/{asked}"));
        let accept = [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX].join(", ");
        let answer = self.client.send(&|authorization| {
            authorized(self.client.agent().get(&url).header("accept", &accept), authorization).call()
        })?;
        let registry = || self.client.registry().to_owned();
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                return Err(RegistryError::NoImage { registry: registry(), name: self.client.named(asked) }.into());
            }
            _ => return Err(self.client.unexpected(&format!("GET {url}"), answer).into()),
        }
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let media_type = header("content-type").unwrap_or_else(|| MANIFEST.to_owned());
        let announced = header("docker-content-digest");
        let mut text = Vec::new();
        let body = answer.into_body().into_with_config().limit(DOCUMENT_BYTES_MAX + 1).reader();
        body.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut text).map_err(ImageError::read(url))?;
        let what = format!("manifest {asked}");
        document::check_size(&what, text.len() as u64)?;
        let found = Digest::of(&text);
        let expected = expected.map(Digest::to_string).or(announced.filter(|digest| digest.starts_with("sha256:")));
        match expected {
            Some(expected) if expected != found.to_string() => {
                let found = found.to_string();
                Err(RegistryError::WrongDigest { registry: registry(), what, expected, found }.into())
            }
            _ => {
                store_text(self.store, self.lease, &text)?;
                Ok((found, media_type, text))
            }
        }
    }

    fn blobs(&self, blobs: &[(Digest, u64)]) -> Result<(), ImageError> {
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
        std::thread::scope(|scope| {
            for _ in 0..BLOBS_AT_ONCE.min(blobs.len()) {
                scope.spawn(|| {
                    while let Some((digest, size)) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if failed.lock().is_some() {
                            return;
                        }
                        if let Err(error) = self.blob(digest, *size) {
                            failed.lock().get_or_insert(error);
                        }
                    }
                });
            }
        });
        failed.into_inner().map_or(Ok(()), Err)
    }

    fn blob(&self, blob: &Digest, size: u64) -> Result<(), ImageError> {
        self.lease.pin_blob(blob);
        let (blob, stage) = (*blob, Stage::Fetch);
        (self.progress)(Report::Begin { blob, stage, bytes: Some(size) });
        if let BeginBlob::Staging(mut staging) = self.store.begin_blob(&blob, Some(size))? {
            self.fetch(&blob, size, &mut staging)?;
            staging.commit()?;
        }
        (self.progress)(Report::End { blob, stage });
        Ok(())
    }

    /// Fetches a blob, and goes on after each cut where it was cut.
    fn fetch(&self, digest: &Digest, size: u64, staging: &mut BlobStaging) -> Result<(), ImageError> {
        let mut tries = 0;
        while staging.offset() < size || size == 0 && tries == 0 {
            let before = staging.offset();
            let Err(cause) = self.fetch_some(digest, staging)? else { break };
            tries = if staging.offset() > before { 1 } else { tries + 1 };
            tracing::debug!(%digest, offset = staging.offset(), cause, "a download was cut");
            if tries >= TRIES {
                let (registry, digest) = (self.client.registry().to_owned(), digest.to_string());
                return Err(RegistryError::Cut { registry, digest, tries, cause }.into());
            }
        }
        Ok(())
    }

    /// One request. The inner result says whether the answer came to its end.
    fn fetch_some(&self, digest: &Digest, staging: &mut BlobStaging) -> Result<Result<(), String>, ImageError> {
        let url = self.client.url(&format!("blobs/{digest}"));
        let offset = staging.offset();
        // A redirect is followed anew each time: the address that it leads to is good for minutes only.
        let answer = self.client.send(&|authorization| {
            let request = authorized(self.client.agent().get(&url), authorization);
            match offset {
                0 => request.call(),
                _ => request.header("range", format!("bytes={offset}-")).call(),
            }
        })?;
        match answer.status() {
            StatusCode::PARTIAL_CONTENT if continues(answer.headers(), offset) => {}
            StatusCode::OK if offset == 0 => {}
            // The server knows no ranges: all of it comes anew.
            StatusCode::OK => staging.restart()?,
            StatusCode::NOT_FOUND => {
                let (registry, digest) = (self.client.registry().to_owned(), digest.to_string());
                return Err(RegistryError::NoBlob { registry, digest }.into());
            }
            _ => return Err(self.client.unexpected(&format!("GET {url}"), answer).into()),
        }
        let mut body = answer.into_body().into_with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match body.read(&mut buffer) {
                Ok(0) => return Ok(Ok(())),
                Ok(read) => {
                    let write = staging.write_all(&buffer[..read]);
                    write.map_err(Error::io("write", &self.store.dirs().ingest()))?;
                    let (blob, stage, bytes) = (*digest, Stage::Fetch, read as u64);
                    (self.progress)(Report::Advance { blob, stage, bytes });
                }
                Err(error) => return Ok(Err(error.to_string())),
            }
        }
    }
}

/// Whether a partial answer begins where we stopped.
fn continues(headers: &header::HeaderMap, offset: u64) -> bool {
    let range = headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
}
