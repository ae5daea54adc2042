//! Images come from a registry.
//!
//! Owns that a layer is unpacked while it comes. Invariant: an image is recorded when every document and blob had its digest
//! and every layer its DiffId.

use super::client::{Access, Client, Transport, authorized};
use super::error::RegistryError;
use super::fetch::Fetcher;
use crate::digest::Digest;
use crate::image::arrivals::Arrivals;
use crate::image::docker::store_text;
use crate::image::document::{self, DOCKER_INDEX, DOCKER_MANIFEST, INDEX, Image, Kind, MANIFEST};
use crate::image::error::ImageError;
use crate::image::layout::{LoadOptions, Loaded};
use crate::image::reference::Reference;
use crate::image::unpack::unpack_from;
use crate::snapshot::gc::DOCUMENT_BYTES_MAX;
use crate::store::{ImageRecord, Lease, Store};
use oci_spec::image::ImageManifest;
use std::io::Read;
use std::time::SystemTime;
use ureq::http::StatusCode;

/// Fetches an image, unpacks and records it under its name, or that in the options.
///
/// # Errors
/// What went wrong, in a sentence. Where the registry or what it sent is at fault, nothing is left; whole blobs and
/// layers that came before a connection broke for good stay for the next try, until a prune.
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
    let documents = Documents { store, client: &client, lease: &lease };
    let asked = match reference.digest() {
        Some(digest) => digest.to_string(),
        None => reference.tag().unwrap_or("latest").to_owned(),
    };
    let (root, media_type, text) = documents.document(&asked, reference.digest())?;
    let (chosen, text) = match document::kind(&root, &text)? {
        Kind::Manifest => (root, text),
        Kind::Index => {
            let chosen = document::choose(&document::parse(&format!("index {root}"), &text)?, options.platform)?;
            (chosen, documents.document(&chosen.to_string(), Some(&chosen))?.2)
        }
    };
    let manifest: ImageManifest = document::parse(&format!("manifest {chosen}"), &text)?;
    let config = manifest.config();
    document::check_size("the image's configuration", config.size())?;
    let fetcher = Fetcher { store, client: &client, lease: &lease, progress: options.progress };
    fetcher.blob(&document::of(config)?, config.size())?;
    let image = Image::open(store, &root, options.platform)?;
    let (found, wanted) = (image.platform(), options.platform);
    if wanted.fit(&found.os, &found.architecture, found.variant.as_deref()).is_none() {
        let (wanted, found) = (wanted.to_string(), found.to_string());
        return Err(ImageError::OtherPlatform { wanted, found });
    }
    fetch_and_unpack(&fetcher, &image, options)?;
    let reference = options.name.unwrap_or(reference).to_string();
    let created = SystemTime::now();
    store.put_image(&ImageRecord { reference: reference.clone(), manifest: root, media_type, created })?;
    Ok(Loaded { reference, manifest: root })
}

/// Unpacks each layer while it comes. What is wrong with a blob goes before what is wrong with the layer in it.
fn fetch_and_unpack(fetcher: &Fetcher<'_>, image: &Image, options: &LoadOptions<'_>) -> Result<(), ImageError> {
    let arrivals = Arrivals::new(image.layers.len());
    let (fetched, unpacked) = std::thread::scope(|scope| {
        let fetch = scope.spawn(|| fetcher.layers(&image.layers, &arrivals));
        let (store, lease) = (fetcher.store, fetcher.lease);
        let unpacked = unpack_from(&arrivals, store, lease, image, &options.unpack, options.progress);
        (fetch.join().unwrap_or(Err(ImageError::Thread)), unpacked)
    });
    fetched.and(unpacked)?;
    image.check_blobs(fetcher.store)
}

struct Documents<'a> {
    store: &'a Store,
    client: &'a Client,
    lease: &'a Lease,
}

impl Documents<'_> {
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
}
