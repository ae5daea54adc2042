//! Manifests, indexes and configurations: read from the store, checked, and followed to one image.
//!
//! Owns media types and the choice of a platform. Invariant: an `Image` is consistent in itself: as many layers as the
//! configuration has DiffIds.

use super::error::ImageError;
use super::platform::Platform;
use crate::digest::{ChainId, DiffId, Digest};
use crate::snapshot::gc::DOCUMENT_BYTES_MAX;
use crate::store::Store;
use lamina_fs::layer::Compression;
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use serde::de::DeserializeOwned;

/// What a manifest of one image is called.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// What a list of manifests is called.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker's name of a manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's name of an index.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// One image: its documents, and what they say together.
#[derive(Debug, Clone)]
pub struct Image {
    /// The digest of its manifest.
    pub manifest_digest: Digest,
    /// Its manifest.
    pub manifest: ImageManifest,
    /// The digest of its configuration: what Docker calls the image's id.
    pub config_digest: Digest,
    /// Its configuration.
    pub config: ImageConfiguration,
    /// Its layers, bottom first.
    pub layers: Vec<Layer>,
}

/// One layer of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// The digest of the blob.
    pub blob: Digest,
    /// Its bytes.
    pub size: u64,
    /// The digest of its content.
    pub diff_id: DiffId,
    /// The layer with all below it.
    pub chain_id: ChainId,
}

impl Image {
    /// The image that a manifest, or of an index the manifest for `platform`, describes.
    ///
    /// # Errors
    /// A document that is not there or does not fit.
    pub fn open(store: &Store, root: &Digest, platform: &Platform) -> Result<Image, ImageError> {
        let text = read(store, root)?;
        match kind(root, &text)? {
            Kind::Manifest => Image::parse(store, root, &text),
            Kind::Index => {
                let chosen = choose(&parse(&format!("index {root}"), &text)?, platform)?;
                Image::parse(store, &chosen, &read(store, &chosen)?)
            }
        }
    }

    fn parse(store: &Store, digest: &Digest, text: &[u8]) -> Result<Image, ImageError> {
        let what = format!("manifest {digest}");
        let manifest: ImageManifest = parse(&what, text)?;
        let config_digest = of(manifest.config())?;
        let config: ImageConfiguration =
            parse(&format!("configuration {config_digest}"), &read(store, &config_digest)?)?;
        let diff_ids: Vec<DiffId> = config.rootfs().diff_ids().iter().map(|id| id.parse()).collect::<Result<_, _>>()?;
        let (layers, count) = (manifest.layers(), diff_ids.len());
        if layers.len() != count {
            return Err(ImageError::LayerCount { layers: layers.len(), diff_ids: count });
        }
        let chains = ChainId::chains(&diff_ids);
        let layers = layers.iter().zip(diff_ids.iter().zip(chains)).map(|(layer, (diff_id, chain_id))| {
            Ok(Layer { blob: of(layer)?, size: layer.size(), diff_id: *diff_id, chain_id })
        });
        let layers = layers.collect::<Result<_, ImageError>>()?;
        Ok(Image { manifest_digest: *digest, manifest, config_digest, config, layers })
    }

    /// That every blob is there, with the size that the manifest says.
    ///
    /// # Errors
    /// [`ImageError::Missing`], [`ImageError::WrongSize`].
    pub fn check_blobs(&self, store: &Store) -> Result<(), ImageError> {
        for layer in &self.layers {
            let Some(blob) = store.blob(&layer.blob)? else {
                let what = format!("manifest {}", self.manifest_digest);
                return Err(ImageError::Missing { what, missing: format!("blob {}", layer.blob) });
            };
            if blob.size != layer.size {
                let (digest, size, found) = (layer.blob.to_string(), layer.size, blob.size);
                return Err(ImageError::WrongSize { digest, size, found });
            }
        }
        Ok(())
    }

    /// For which machine it is.
    pub fn platform(&self) -> Platform {
        Platform {
            os: self.config.os().to_string(),
            architecture: self.config.architecture().to_string(),
            variant: self.config.variant().clone(),
        }
    }

    /// The whole chain; none for an image without layers.
    pub fn chain(&self) -> Option<ChainId> {
        self.layers.last().map(|layer| layer.chain_id)
    }
}

/// What a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One image.
    Manifest,
    /// A list of them.
    Index,
}

/// Tells a manifest from an index by what it holds: the media type is optional, and servers make mistakes.
pub fn kind(digest: &Digest, text: &[u8]) -> Result<Kind, ImageError> {
    #[derive(serde::Deserialize)]
    struct Shape {
        #[serde(rename = "schemaVersion")]
        version: Option<u32>,
        manifests: Option<Vec<serde::de::IgnoredAny>>,
        layers: Option<Vec<serde::de::IgnoredAny>>,
    }
    let what = format!("manifest {digest}");
    let shape: Shape = parse(&what, text)?;
    match shape {
        Shape { version: Some(1), .. } => Err(ImageError::TooOld { what }),
        Shape { manifests: Some(_), layers: None, .. } => Ok(Kind::Index),
        Shape { manifests: None, layers: Some(_), .. } => Ok(Kind::Manifest),
        _ => Err(ImageError::BadDocument { what, cause: "it is neither a manifest nor an index".to_owned() }),
    }
}

/// The manifest of an index that serves a platform best.
///
/// # Errors
/// [`ImageError::OtherPlatform`], which names those that there are.
pub fn choose(index: &ImageIndex, platform: &Platform) -> Result<Digest, ImageError> {
    let fit = |descriptor: &&Descriptor| match descriptor.platform() {
        Some(found) => {
            platform.fit(&found.os().to_string(), &found.architecture().to_string(), found.variant().as_deref())
        }
        // An index of one image need not say.
        None => Some(0),
    };
    let best = index.manifests().iter().filter(|descriptor| fit(descriptor).is_some()).max_by_key(fit);
    match best {
        Some(descriptor) => of(descriptor),
        None => {
            let known = index.manifests().iter().filter_map(|descriptor| descriptor.platform().as_ref());
            let found: Vec<String> = known.map(|known| format!("{}/{}", known.os(), known.architecture())).collect();
            Err(ImageError::OtherPlatform { wanted: platform.to_string(), found: found.join(", ") })
        }
    }
}

/// The digest of a descriptor.
pub fn of(descriptor: &Descriptor) -> Result<Digest, ImageError> {
    Ok(descriptor.digest().to_string().parse()?)
}

/// A document's text.
pub fn read(store: &Store, digest: &Digest) -> Result<Vec<u8>, ImageError> {
    let Some(blob) = store.blob(digest)? else {
        return Err(crate::error::Error::NoBlob { digest: digest.to_string() }.into());
    };
    let what = format!("blob {digest}");
    check_size(&what, blob.size)?;
    let text = std::fs::read(&blob.path).map_err(ImageError::read(what))?;
    match Digest::of(&text) {
        found if found == *digest => Ok(text),
        found => {
            let (expected, found) = (digest.to_string(), found.to_string());
            Err(crate::error::Error::WrongDigest { expected, found }.into())
        }
    }
}

/// That a document may be read into memory.
pub fn check_size(what: &str, bytes: u64) -> Result<(), ImageError> {
    match bytes <= DOCUMENT_BYTES_MAX {
        true => Ok(()),
        false => Err(ImageError::TooLarge { what: what.to_owned(), bytes, max: DOCUMENT_BYTES_MAX }),
    }
}

/// Parses a document.
pub fn parse<T: DeserializeOwned>(what: &str, text: &[u8]) -> Result<T, ImageError> {
    serde_json::from_slice(text).map_err(ImageError::document(what))
}

/// The media type of a layer that is compressed so.
pub fn layer_type(compression: Compression) -> MediaType {
    match compression {
        Compression::None => MediaType::ImageLayer,
        Compression::Gzip => MediaType::ImageLayerGzip,
        Compression::Zstd => MediaType::ImageLayerZstd,
    }
}
