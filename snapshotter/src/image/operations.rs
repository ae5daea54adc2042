//! What can be asked of images that are there, and done with their names.
//!
//! Invariant: a name is found in the forms in which people write it, and by the beginning of an id.

use super::document::Image;
use super::error::ImageError;
use super::platform::Platform;
use super::reference::Reference;
use crate::store::{ImageRecord, Store};
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// The fewest digits of an id that name an image.
const ID_DIGITS_MIN: usize = 6;

/// One line of a list of images.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Listed {
    /// The name.
    pub reference: String,
    /// The digest of the configuration.
    pub id: String,
    /// The digest of the manifest or index.
    pub digest: String,
    /// For which machine.
    pub platform: String,
    /// When the image was built, as its configuration says.
    pub created: Option<String>,
    /// When the name came to mean it, in seconds since 1970.
    pub named: u64,
    /// Bytes of its blobs, as they are sent.
    pub blob_bytes: u64,
    /// Bytes of its layers on disk.
    pub disk_bytes: u64,
}

/// One step of how an image was built, newest first.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Step {
    /// When.
    pub created: Option<String>,
    /// By which command.
    pub created_by: Option<String>,
    /// What the builder noted.
    pub comment: Option<String>,
    /// The digest of its layer's content, where it made one.
    pub diff_id: Option<String>,
    /// Bytes of that layer on disk.
    pub disk_bytes: Option<u64>,
}

/// All there is to know of an image.
#[derive(Debug, Clone, Serialize)]
pub struct Inspected {
    /// As in a list.
    #[serde(flatten)]
    pub listed: Listed,
    /// Every name it has.
    pub names: Vec<String>,
    /// The layers, bottom first.
    pub layers: Vec<InspectedLayer>,
    /// The configuration, as it is.
    pub config: serde_json::Value,
}

/// One layer of an image.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct InspectedLayer {
    /// The digest of its blob.
    pub blob: String,
    /// Bytes of that.
    pub blob_bytes: u64,
    /// The digest of its content.
    pub diff_id: String,
    /// The digest of the layer with all below it.
    pub chain_id: String,
    /// The directory that it was unpacked into, where it is.
    pub directory: Option<std::path::PathBuf>,
    /// Bytes of that.
    pub disk_bytes: Option<u64>,
}

/// The image that a name or the beginning of an id means.
///
/// # Errors
/// [`ImageError::NoImage`], [`ImageError::Ambiguous`].
pub fn find(store: &Store, text: &str) -> Result<ImageRecord, ImageError> {
    let records = store.images()?;
    if let Ok(reference) = text.parse::<Reference>() {
        let full = reference.to_string();
        if let Some(record) = records.iter().find(|record| record.reference == full) {
            return Ok(record.clone());
        }
    }
    let id = text.strip_prefix("sha256:").unwrap_or(text);
    let digits = id.len() >= ID_DIGITS_MIN && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut found: Vec<(String, ImageRecord)> = Vec::new();
    for record in records.into_iter().filter(|_| digits) {
        let config = open(store, &record)?.config_digest.hex();
        if config.starts_with(id) || record.manifest.hex().starts_with(id) {
            found.push((config, record));
        }
    }
    let same = found.windows(2).all(|pair| pair[0].0 == pair[1].0);
    match found.into_iter().next() {
        None => Err(ImageError::NoImage { text: text.to_owned() }),
        Some(_) if !same => Err(ImageError::Ambiguous { text: text.to_owned() }),
        Some((_, record)) => Ok(record),
    }
}

/// Opens a recorded image.
pub fn open(store: &Store, record: &ImageRecord) -> Result<Image, ImageError> {
    Image::open(store, &record.manifest, &Platform::host())
}

/// All images, in the order of their names.
///
/// # Errors
/// An image whose documents are damaged.
pub fn list(store: &Store) -> Result<Vec<Listed>, ImageError> {
    store.images()?.iter().map(|record| listed(store, record, &open(store, record)?)).collect()
}

fn listed(store: &Store, record: &ImageRecord, image: &Image) -> Result<Listed, ImageError> {
    let mut disk_bytes = 0;
    for layer in &image.layers {
        disk_bytes += store.layer(&layer.chain_id)?.and_then(|layer| layer.usage).map_or(0, |usage| usage.size);
    }
    let named = record.created.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Ok(Listed {
        reference: record.reference.clone(),
        id: image.config_digest.to_string(),
        digest: record.manifest.to_string(),
        platform: image.platform().to_string(),
        created: image.config.created().clone(),
        named,
        blob_bytes: image.manifest.config().size() + image.layers.iter().map(|layer| layer.size).sum::<u64>(),
        disk_bytes,
    })
}

/// All there is to know of one.
///
/// # Errors
/// As of `find`; or its documents are damaged.
pub fn inspect(store: &Store, text: &str) -> Result<Inspected, ImageError> {
    let record = find(store, text)?;
    let image = open(store, &record)?;
    let names = store.images()?.into_iter().filter(|other| other.manifest == record.manifest);
    let mut layers = Vec::new();
    for layer in &image.layers {
        let unpacked = store.layer(&layer.chain_id)?;
        layers.push(InspectedLayer {
            blob: layer.blob.to_string(),
            blob_bytes: layer.size,
            diff_id: layer.diff_id.to_string(),
            chain_id: layer.chain_id.to_string(),
            directory: unpacked.as_ref().map(|unpacked| store.dirs().layer(unpacked.content)),
            disk_bytes: unpacked.and_then(|unpacked| unpacked.usage).map(|usage| usage.size),
        });
    }
    let config = super::document::read(store, &image.config_digest)?;
    Ok(Inspected {
        listed: listed(store, &record, &image)?,
        names: names.map(|record| record.reference).collect(),
        layers,
        config: super::document::parse(&format!("configuration {}", image.config_digest), &config)?,
    })
}

/// How an image was built, newest step first.
///
/// # Errors
/// As of `find`; or its documents are damaged.
pub fn history(store: &Store, text: &str) -> Result<Vec<Step>, ImageError> {
    let image = open(store, &find(store, text)?)?;
    let mut layers = image.layers.iter();
    let mut steps = Vec::new();
    for step in image.config.history().iter().flatten() {
        let layer = if step.empty_layer() == Some(true) { None } else { layers.next() };
        let unpacked = layer.map(|layer| store.layer(&layer.chain_id)).transpose()?.flatten();
        steps.push(Step {
            created: step.created().clone(),
            created_by: step.created_by().clone(),
            comment: step.comment().clone(),
            diff_id: layer.map(|layer| layer.diff_id.to_string()),
            disk_bytes: unpacked.and_then(|unpacked| unpacked.usage).map(|usage| usage.size),
        });
    }
    steps.reverse();
    Ok(steps)
}

/// Gives an image another name; a name that another image had goes over to this one.
///
/// # Errors
/// As of `find`; a name that is none.
pub fn tag(store: &Store, text: &str, name: &str) -> Result<Reference, ImageError> {
    let name: Reference = name.parse()?;
    let record = find(store, text)?;
    store.put_image(&ImageRecord { reference: name.to_string(), created: SystemTime::now(), ..record })?;
    Ok(name)
}

/// Takes a name away; blobs and layers go with the next prune. By an id, all its names.
///
/// # Errors
/// As of `find`.
pub fn remove(store: &Store, text: &str) -> Result<Vec<String>, ImageError> {
    let record = find(store, text)?;
    let by_name = text.parse::<Reference>().is_ok_and(|name| name.to_string() == record.reference);
    let names: Vec<String> = match by_name {
        true => vec![record.reference],
        false => store
            .images()?
            .into_iter()
            .filter(|other| other.manifest == record.manifest)
            .map(|other| other.reference)
            .collect(),
    };
    for name in &names {
        store.remove_image(name)?;
    }
    Ok(names)
}
