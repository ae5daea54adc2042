//! Images go to a registry.
//!
//! Owns the order: blobs first, the manifest last, so that a registry never names what it does not have; and that a blob is
//! sent only where the registry has it neither here nor in a repository that the store knows. Invariant: the registry's own
//! digest of the manifest is ours.

use super::at_once::at_once;
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
use std::collections::HashMap;
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
    let others = others(store, reference)?;
    // A blob that two layers share is sent once.
    let mut blobs: Vec<Digest> = Vec::new();
    for digest in image.layers.iter().map(|layer| layer.blob).chain([image.config_digest]) {
        lease.pin_blob(&digest);
        if !blobs.contains(&digest) {
            blobs.push(digest);
        }
    }
    let bring = |_, digest: &Digest| {
        let (digest, stage) = (*digest, Stage::Send);
        let blob = store.blob(&digest)?.ok_or_else(|| Error::NoBlob { digest: digest.to_string() })?;
        progress(Report::Begin { blob: digest, stage, bytes: Some(blob.size) });
        send(&client, &blob, others.get(&digest).map(String::as_str), progress)?;
        progress(Report::End { blob: digest, stage });
        Ok(())
    };
    at_once(&blobs, bring, || ())?;
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

/// Blobs that the registry should have in other repositories, going by the names of images in the store.
fn others(store: &Store, reference: &Reference) -> Result<HashMap<Digest, String>, ImageError> {
    let mut found = HashMap::new();
    for record in store.images()? {
        let Ok(other) = record.reference.parse::<Reference>() else { continue };
        if other.registry() != reference.registry() || other.repository() == reference.repository() {
            continue;
        }
        match Image::open(store, &record.manifest, &Platform::host()) {
            Ok(image) => {
                found.extend(image.layers.iter().map(|layer| (layer.blob, other.repository().to_owned())));
            }
            // It only saves sending: whoever asks for that image is told what is wrong with it.
            Err(error) => tracing::debug!(%error, image = record.reference, "not looked into"),
        }
    }
    Ok(found)
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

/// Brings a blob, unless it is there: from another repository, or in one request. One that was cut begins anew unless it came
/// whole, since what a registry kept of it is its own affair: docker-registry throws it away.
fn send(client: &Client, blob: &Blob, from: Option<&str>, progress: Progress<'_>) -> Result<(), ImageError> {
    let mut tries = 1;
    while !has(client, &blob.digest)? {
        let Some(location) = begin(client, &blob.digest, from)? else { return Ok(()) };
        let answer = match upload(client, blob, &location, progress) {
            Err(ImageError::Registry(RegistryError::Unreachable { cause, .. })) if tries < TRIES => {
                tracing::debug!(digest = %blob.digest, cause, "an upload was cut");
                tries += 1;
                continue;
            }
            other => other?,
        };
        match answer.status() {
            StatusCode::CREATED => return Ok(()),
            status if status.is_server_error() && tries < TRIES => tries += 1,
            _ => return Err(client.unexpected(&format!("PUT blob {}", blob.digest), answer).into()),
        }
    }
    Ok(())
}

/// Asks for an upload: where to, or `None` where the blob was taken over from another repository.
fn begin(client: &Client, digest: &Digest, from: Option<&str>) -> Result<Option<String>, ImageError> {
    let url = client.url("blobs/uploads/");
    if let Some(from) = from {
        let mount = format!("{url}?mount={digest}&from={from}");
        match client.send(&|authorization| authorized(client.agent().post(&mount), authorization).send_empty()) {
            Ok(answer) if answer.status() == StatusCode::CREATED => return Ok(None),
            Ok(answer) if answer.status() == StatusCode::ACCEPTED => return Ok(Some(location(&answer))),
            // Who may not read there may still write here.
            Ok(answer) => tracing::debug!(%digest, from, status = %answer.status(), "not taken over"),
            Err(RegistryError::WrongPassword { .. } | RegistryError::NoCredentials { .. }) => {
                tracing::debug!(%digest, from, "not taken over: no permission to read there");
            }
            Err(error) => return Err(error.into()),
        }
    }
    let begun = client.send(&|authorization| authorized(client.agent().post(&url), authorization).send_empty())?;
    match begun.status() {
        StatusCode::ACCEPTED => Ok(Some(location(&begun))),
        _ => Err(client.unexpected(&format!("POST {url}"), begun).into()),
    }
}

fn location(answer: &Response<ureq::Body>) -> String {
    answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

fn upload(
    client: &Client,
    blob: &Blob,
    location: &str,
    progress: Progress<'_>,
) -> Result<Response<ureq::Body>, ImageError> {
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
