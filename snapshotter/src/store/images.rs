//! Which image a reference names.
//!
//! Owns the records. Must not know manifests. Invariant: a record is written when everything that it refers to is there,
//! under a lease until then.

use super::Store;
use super::metadata::{decode, encode};
use crate::digest::Digest;
use crate::error::{Error, Result};
use redb::ReadableTable as _;
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

/// An image by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The name in full, such as `docker.io/library/debian:12`.
    pub reference: String,
    /// The manifest or index that it names.
    pub manifest: Digest,
    /// The media type of that.
    pub media_type: String,
    /// When the reference was made to name it.
    pub created: SystemTime,
}

impl Store {
    /// Makes a reference name an image, also if it named another before; answers that one.
    ///
    /// # Errors
    /// [`Error::Metadata`].
    pub fn put_image(&self, image: &ImageRecord) -> Result<Option<ImageRecord>> {
        self.metadata().write(|change| {
            let mut images = change.images()?;
            let before = images.insert(image.reference.as_str(), encode(image)?.as_slice())?;
            before.map(|record| decode(record.value())).transpose()
        })
    }

    /// The image that a reference names.
    ///
    /// # Errors
    /// [`Error::NoImage`].
    pub fn image(&self, reference: &str) -> Result<ImageRecord> {
        self.metadata().read(|view| match view.images.get(reference)? {
            Some(record) => decode(record.value()),
            None => Err(Error::NoImage { reference: reference.to_owned() }),
        })
    }

    /// All references, in the order of their names.
    ///
    /// # Errors
    /// [`Error::Metadata`].
    pub fn images(&self) -> Result<Vec<ImageRecord>> {
        self.metadata().read(|view| {
            let mut found = Vec::new();
            for entry in view.images.iter()? {
                found.push(decode(entry?.1.value())?);
            }
            Ok(found)
        })
    }

    /// Forgets a reference; what only it referred to stays until the next prune.
    ///
    /// # Errors
    /// [`Error::NoImage`].
    pub fn remove_image(&self, reference: &str) -> Result<ImageRecord> {
        self.metadata().write(|change| {
            let mut images = change.images()?;
            match images.remove(reference)? {
                Some(record) => decode(record.value()),
                None => Err(Error::NoImage { reference: reference.to_owned() }),
            }
        })
    }
}
