//! Blobs come from a registry.
//!
//! Owns going on where a download was cut. Must not know what is in a blob. Invariant: what is committed had its digest and
//! size; what was not is gone.

use super::at_once::at_once;
use super::client::{Client, TRIES, authorized};
use super::error::RegistryError;
use crate::digest::Digest;
use crate::error::Error;
use crate::image::arrivals::Arrivals;
use crate::image::document::Layer;
use crate::image::error::ImageError;
use crate::image::progress::{Progress, Report, Stage};
use crate::store::{BeginBlob, Blob, BlobStaging, Lease, Store};
use std::fs::File;
use std::io::{Read, Write};
use ureq::http::{StatusCode, header};

/// Bytes that are read from a connection at once.
const READ_BYTES: usize = 128 << 10;

/// Brings blobs of one repository into the store.
pub struct Fetcher<'a> {
    pub store: &'a Store,
    pub client: &'a Client,
    pub lease: &'a Lease,
    pub progress: Progress<'a>,
}

/// Whoever reads a blob while it comes.
#[derive(Clone, Copy)]
struct Reader<'a> {
    arrivals: &'a Arrivals,
    at: usize,
}

impl Fetcher<'_> {
    /// Brings the blobs of all layers, bottom first, and tells `arrivals` how far each is. What it fails with is what is wrong
    /// with the blobs; where a layer could not be unpacked it just ends.
    pub fn layers(&self, layers: &[Layer], arrivals: &Arrivals) -> Result<(), ImageError> {
        let bring = |at, layer: &Layer| match arrivals.is_open() {
            true => self.bring(&layer.blob, layer.size, Some(Reader { arrivals, at })),
            false => Ok(()),
        };
        at_once(layers, bring, || arrivals.give_up())
    }

    /// Brings one blob.
    pub fn blob(&self, blob: &Digest, size: u64) -> Result<(), ImageError> {
        self.bring(blob, size, None)
    }

    fn bring(&self, blob: &Digest, size: u64, reader: Option<Reader<'_>>) -> Result<(), ImageError> {
        self.lease.pin_blob(blob);
        let (blob, stage) = (*blob, Stage::Fetch);
        (self.progress)(Report::Begin { blob, stage, bytes: Some(size) });
        match self.store.begin_blob(&blob, Some(size))? {
            BeginBlob::Present(found) => present(&found, size, reader)?,
            BeginBlob::Staging(mut staging) => {
                if let Some(Reader { arrivals, at }) = reader {
                    arrivals.begin(at, staging.reader()?, 0);
                }
                if !self.fetch(&blob, size, &mut staging, reader)? {
                    return Ok(());
                }
                if let Some(Reader { arrivals, at }) = reader {
                    arrivals.end(at);
                }
                staging.commit()?;
            }
        }
        (self.progress)(Report::End { blob, stage });
        Ok(())
    }

    /// Fetches a blob, and goes on after each cut where it was cut. Answers whether the blob is still wanted.
    fn fetch(
        &self,
        digest: &Digest,
        size: u64,
        staging: &mut BlobStaging,
        reader: Option<Reader<'_>>,
    ) -> Result<bool, ImageError> {
        let mut tries = 0;
        while staging.offset() < size || size == 0 && tries == 0 {
            let before = staging.offset();
            let cause = match self.fetch_some(digest, staging, reader)? {
                Answer::Ended => return Ok(true),
                Answer::Unwanted => return Ok(false),
                Answer::Cut(cause) => cause,
            };
            tries = if staging.offset() > before { 1 } else { tries + 1 };
            tracing::debug!(%digest, offset = staging.offset(), cause, "a download was cut");
            if tries >= TRIES {
                let (registry, digest) = (self.client.registry().to_owned(), digest.to_string());
                return Err(RegistryError::Cut { registry, digest, tries, cause }.into());
            }
        }
        Ok(true)
    }

    /// One request.
    fn fetch_some(
        &self,
        digest: &Digest,
        staging: &mut BlobStaging,
        reader: Option<Reader<'_>>,
    ) -> Result<Answer, ImageError> {
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
            StatusCode::OK => {
                if let Some(Reader { arrivals, at }) = reader {
                    arrivals.advance(at, 0);
                }
                staging.restart()?;
            }
            StatusCode::NOT_FOUND => {
                let (registry, digest) = (self.client.registry().to_owned(), digest.to_string());
                return Err(RegistryError::NoBlob { registry, digest }.into());
            }
            _ => return Err(self.client.unexpected(&format!("GET {url}"), answer).into()),
        }
        let mut body = answer.into_body().into_with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; READ_BYTES];
        while reader.is_none_or(|Reader { arrivals, at }| arrivals.wants(at)) {
            match body.read(&mut buffer) {
                Ok(0) => return Ok(Answer::Ended),
                Ok(read) => {
                    let write = staging.write_all(&buffer[..read]);
                    write.map_err(Error::io("write", &self.store.dirs().ingest()))?;
                    if let Some(Reader { arrivals, at }) = reader {
                        arrivals.advance(at, staging.offset());
                    }
                    let (blob, stage, bytes) = (*digest, Stage::Fetch, read as u64);
                    (self.progress)(Report::Advance { blob, stage, bytes });
                }
                Err(error) => return Ok(Answer::Cut(error.to_string())),
            }
        }
        Ok(Answer::Unwanted)
    }
}

/// How an answer ended.
enum Answer {
    /// With its last byte.
    Ended,
    /// Before it, for this reason.
    Cut(String),
    /// Nobody wants the rest.
    Unwanted,
}

/// A blob that was there already is read like one that comes.
fn present(found: &Blob, size: u64, reader: Option<Reader<'_>>) -> Result<(), ImageError> {
    if found.size != size {
        return Err(ImageError::WrongSize { digest: found.digest.to_string(), size, found: found.size });
    }
    if let Some(Reader { arrivals, at }) = reader {
        let file = File::open(&found.path).map_err(Error::io("open", &found.path))?;
        arrivals.begin(at, file, found.size);
        arrivals.end(at);
    }
    Ok(())
}

/// Whether a partial answer begins where we stopped.
fn continues(headers: &header::HeaderMap, offset: u64) -> bool {
    let range = headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
}
