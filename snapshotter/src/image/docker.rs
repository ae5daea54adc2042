//! The archive of `docker save`: `manifest.json` names configurations and layers by files.
//!
//! Owns turning it into an OCI manifest. Docker's configuration is the OCI one, so the image's id stays. Invariant: only
//! files of the archive are taken, each with the digest that it has.

use super::document::{self, MANIFEST};
use super::error::ImageError;
use super::layout::{Gathered, Root};
use crate::store::{Blob, Lease, Store};
use lamina_fs::layer::Compression;
use oci_spec::image::{Descriptor, ImageManifestBuilder, MediaType, Sha256Digest};
use std::io::{Read, Write};
use std::str::FromStr;

/// One element of `manifest.json`.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DockerImage {
    /// The configuration's file.
    pub config: String,
    /// Its names.
    #[serde(default, deserialize_with = "nothing_is_empty")]
    pub repo_tags: Vec<String>,
    /// The layers' files, bottom first.
    #[serde(default, deserialize_with = "nothing_is_empty")]
    pub layers: Vec<String>,
}

/// Docker writes `null` for an empty list.
fn nothing_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let list: Option<Vec<String>> = serde::Deserialize::deserialize(deserializer)?;
    Ok(list.unwrap_or_default())
}

/// The images of an archive, their manifests made and stored.
pub(super) fn images(
    store: &Store,
    lease: &Lease,
    archive: &Gathered<'_>,
    text: &[u8],
) -> Result<Vec<Root>, ImageError> {
    let what = format!("manifest.json in {}", archive.what);
    let images: Vec<DockerImage> = document::parse(&what, text)?;
    if images.is_empty() {
        return Err(ImageError::NotAnImage { what: archive.what.to_owned() });
    }
    let mut roots = Vec::new();
    for image in images {
        let config = archive.file(&image.config)?;
        let layers = image.layers.iter().map(|name| layer(archive.file(name)?)).collect::<Result<Vec<_>, _>>()?;
        let digest = manifest(store, lease, descriptor(MediaType::ImageConfig, config)?, layers)?;
        roots.push(Root { names: image.repo_tags, digest, media_type: MANIFEST.to_owned() });
    }
    Ok(roots)
}

/// Stores the manifest of an image.
pub(super) fn manifest(
    store: &Store,
    lease: &Lease,
    config: Descriptor,
    layers: Vec<Descriptor>,
) -> Result<crate::digest::Digest, ImageError> {
    let broken = |cause: String| ImageError::BadDocument { what: "the image's manifest".to_owned(), cause };
    let manifest = ImageManifestBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers(layers)
        .build()
        .map_err(|error| broken(error.to_string()))?;
    let text = manifest.to_string().map_err(|error| broken(error.to_string()))?;
    Ok(store_text(store, lease, text.as_bytes())?.digest)
}

/// Stores a document.
pub(super) fn store_text(store: &Store, lease: &Lease, text: &[u8]) -> Result<Blob, ImageError> {
    let mut spool = store.spool_blob()?;
    spool.write_all(text).map_err(ImageError::write("a blob of the store"))?;
    Ok(spool.commit(lease)?)
}

/// The descriptor of a blob.
pub(super) fn descriptor(media_type: MediaType, blob: &Blob) -> Result<Descriptor, ImageError> {
    let broken = |cause: String| ImageError::BadDocument { what: format!("blob {}", blob.digest), cause };
    let digest = Sha256Digest::from_str(&blob.digest.hex()).map_err(|error| broken(error.to_string()))?;
    Ok(Descriptor::new(media_type, blob.size, digest))
}

fn layer(blob: &Blob) -> Result<Descriptor, ImageError> {
    let what = blob.path.display().to_string();
    let mut start = Vec::new();
    let file = std::fs::File::open(&blob.path).map_err(ImageError::read(what.clone()))?;
    file.take(4).read_to_end(&mut start).map_err(ImageError::read(what))?;
    descriptor(document::layer_type(Compression::of(&start)), blob)
}
