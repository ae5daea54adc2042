//! Images go to a registry.
//!
//! Owns the order: blobs first, the manifest last, so that a registry never names what it does not have. Invariant: the
//! registry's own digest of the manifest is ours.

use super::client::{Access, Client, TRIES, Transport, authorized};
use super::error::RegistryError;
use crate::digest::Digest;
use crate::error::Error;
use crate::image::document::{self, Image, MANIFEST};
use crate::image::error::ImageError;
use crate::image::platform::Platform;
use crate::image::progress::{Progress, Report, Stage};
use crate::image::reference::Reference;
use crate::store::{Blob, ImageRecord, Store};
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use ureq::SendBody;
use ureq::http::{Response, StatusCode, header};

/// Sends an image, under the name that it has or another one. Answers the digest of its manifest there.
///
/// # Errors
/// What went wrong, in a sentence.
pub fn push(
    store: &Store,
    record: &ImageRecord,
    reference: &Reference,
    transport: Transport,
    progress: Progress<'_>,
) -> Result<Digest, ImageError> {
    let lease = store.lease();
    let image = Image::open(store, &record.manifest, &Platform::host())?;
    let client = Client::new(reference, transport, Access::Push)?;
    for digest in image.layers.iter().map(|layer| layer.blob).chain([image.config_digest]) {
        lease.pin_blob(&digest);
        let blob = store.blob(&digest)?.ok_or_else(|| Error::NoBlob { digest: digest.to_string() })?;
        progress(Report::Begin { blob: digest, stage: Stage::Send, bytes: Some(blob.size) });
        if !has(&client, &digest)? {
            send(&client, &blob, progress)?;
        }
        progress(Report::End { blob: digest, stage: Stage::Send });
    }
    let text = document::read(store, &image.manifest_digest)?;
    let media_type = image.manifest.media_type().as_ref().map_or_else(|| MANIFEST.to_owned(), ToString::to_string);
    let name = reference.tag().map_or_else(|| image.manifest_digest.to_string(), str::to_owned);
    let url = client.url(&format!("manifests/{name}"));
    let answer = client.send(&|authorization| {
        authorized(client.agent().put(&url), authorization).content_type(&media_type).send(text.as_slice())
    })?;
    if !answer.status().is_success() {
        return Err(client.unexpected(&format!("PUT {url}"), answer).into());
    }
    let expected = image.manifest_digest.to_string();
    match answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok()) {
        Some(found) if found != expected => {
            let (registry, what, found) = (client.registry().to_owned(), "manifest".to_owned(), found.to_owned());
            Err(RegistryError::WrongDigest { registry, what, expected, found }.into())
        }
        _ => Ok(image.manifest_digest),
    }
}

fn has(client: &Client, digest: &Digest) -> Result<bool, ImageError> {
    let url = client.url(&format!("blobs/{digest}"));
    let answer = client.send(&|authorization| authorized(client.agent().head(&url), authorization).call())?;
    match answer.status() {
        StatusCode::OK => Ok(true),
        StatusCode::NOT_FOUND => Ok(false),
        _ => Err(client.unexpected(&format!("HEAD {url}"), answer).into()),
    }
}

/// Uploads a blob in one request; one that was cut begins anew, since what a registry kept of it is its own affair.
fn send(client: &Client, blob: &Blob, progress: Progress<'_>) -> Result<(), ImageError> {
    let mut tries = 1;
    loop {
        let answer = match upload(client, blob, progress) {
            Err(ImageError::Registry(RegistryError::Unreachable { .. })) if tries < TRIES => {
                tries += 1;
                continue;
            }
            other => other?,
        };
        return match answer.status() {
            StatusCode::CREATED => Ok(()),
            status if status.is_server_error() && tries < TRIES => {
                tries += 1;
                continue;
            }
            _ => Err(client.unexpected(&format!("PUT blob {}", blob.digest), answer).into()),
        };
    }
}

fn upload(client: &Client, blob: &Blob, progress: Progress<'_>) -> Result<Response<ureq::Body>, ImageError> {
    let url = client.url("blobs/uploads/");
    let begun = client.send(&|authorization| authorized(client.agent().post(&url), authorization).send_empty())?;
    if begun.status() != StatusCode::ACCEPTED {
        return Err(client.unexpected(&format!("POST {url}"), begun).into());
    }
    let location = begun.headers().get(header::LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (location, own) = client.location(location);
    let joint = if location.contains('?') { '&' } else { '?' };
    let url = format!("{location}{joint}digest={}", blob.digest);
    let what = blob.path.display().to_string();
    let file = File::open(&blob.path).map_err(ImageError::read(what))?;
    let body = RefCell::new(Told { file, blob: blob.digest, progress });
    client.send_once(&|authorization| {
        let authorization = authorization.filter(|_| own);
        let request = authorized(client.agent().put(&url), authorization);
        let request = request.content_type("application/octet-stream").header("content-length", blob.size.to_string());
        request.send(SendBody::from_reader(&mut *body.borrow_mut()))
    })
}

/// Tells what was read of it.
struct Told<'a> {
    file: File,
    blob: Digest,
    progress: Progress<'a>,
}

impl Read for Told<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        (self.progress)(Report::Advance { blob: self.blob, stage: Stage::Send, bytes: read as u64 });
        Ok(read)
    }
}
