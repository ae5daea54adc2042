//! What can be wrong with an image, or with getting one, in sentences.
//!
//! Invariant: each names the object, the cause and the way out; after it the store is as before.

use crate::error::{Error, ErrorKind};
use lamina_fs::layer::{ApplyError, ArchiveError, DiffError};
use std::io;

/// Why an operation on an image was refused or failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences say it")]
#[non_exhaustive]
pub enum ImageError {
    #[error(transparent)]
    Store(#[from] Error),
    #[error("{text:?} is not the name of an image: {cause}")]
    BadReference { text: String, cause: &'static str },
    #[error("{text:?} is not a platform: write OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, such as linux/amd64")]
    BadPlatform { text: String },
    #[error("the image has no name in {what}: give it one with --tag NAME")]
    NoName { what: String },
    #[error("{what} holds {count} images, and one name is given for them: leave --tag out")]
    ManyImages { what: String, count: usize },
    #[error("{what} is no image: it has neither an index.json (OCI layout) nor a manifest.json (docker save)")]
    NotAnImage { what: String },
    #[error(
        "{what} was written by a Docker older than 1.10, whose images have no digests: load it there and save it anew"
    )]
    TooOld { what: String },
    #[error("{what} cannot be read: {cause}")]
    Read { what: String, cause: io::Error },
    #[error("{what} cannot be written: {cause}")]
    Write { what: String, cause: io::Error },
    #[error("{what}: {cause}")]
    Archive { what: String, cause: ArchiveError },
    #[error("{what} is {bytes} bytes long and {max} is the most for a document of an image")]
    TooLarge { what: String, bytes: u64, max: u64 },
    #[error("{what} is damaged: {cause}")]
    BadDocument { what: String, cause: String },
    #[error("{what} refers to {missing}, which it does not hold: it was cut off, or not written completely")]
    Missing { what: String, missing: String },
    #[error("blob {digest} has {found} bytes and its image says {size}: fetch it again")]
    WrongSize { digest: String, size: u64, found: u64 },
    #[error("the image is for {found} and not for {wanted}: ask for another with --platform")]
    OtherPlatform { wanted: String, found: String },
    #[error(
        "the image has {layers} layers and its configuration speaks of {diff_ids}: it is damaged, fetch or build it again"
    )]
    LayerCount { layers: usize, diff_ids: usize },
    #[error(
        "layer {layer} unpacks to {found} and the image says {expected}: fetch it again, or distrust where it comes from"
    )]
    WrongDiffId { layer: String, expected: String, found: String },
    #[error("{text:?} is no change of a configuration: {cause}")]
    BadEdit { text: String, cause: String },
    #[error("the changes in {what} cannot be read: {cause}")]
    Changeset { what: String, cause: DiffError },
    #[error("layer {layer}: {cause}")]
    Layer { layer: String, cause: ApplyError },
    #[error("a thread of the unpacking failed")]
    Thread,
    #[error("no image is called {text}, nor does the id of one begin so; list the images to see what there is")]
    NoImage { text: String },
    #[error("several images have an id that begins with {text}: write more of it")]
    Ambiguous { text: String },
    #[error(transparent)]
    Registry(#[from] super::registry::RegistryError),
}

impl ImageError {
    /// For `map_err` on reading.
    pub(super) fn read(what: impl Into<String>) -> impl FnOnce(io::Error) -> ImageError {
        let what = what.into();
        move |cause| ImageError::Read { what, cause }
    }

    /// For `map_err` on writing.
    pub(super) fn write(what: impl Into<String>) -> impl FnOnce(io::Error) -> ImageError {
        let what = what.into();
        move |cause| ImageError::Write { what, cause }
    }

    /// For `map_err` on a document that does not parse.
    pub(super) fn document(what: impl Into<String>) -> impl FnOnce(serde_json::Error) -> ImageError {
        let what = what.into();
        move |cause| ImageError::BadDocument { what, cause: cause.to_string() }
    }

    /// Which of the store's kinds it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ImageError::Store(error) => error.kind(),
            ImageError::NoImage { .. } => ErrorKind::NotFound,
            ImageError::Registry(_) => ErrorKind::Unavailable,
            ImageError::Write { .. } | ImageError::Thread => ErrorKind::Internal,
            _ => ErrorKind::InvalidArgument,
        }
    }
}

impl From<io::Error> for ImageError {
    /// A blob's own reader: what it was read for is named by whoever asked.
    fn from(cause: io::Error) -> ImageError {
        ImageError::Read { what: "the blob".to_owned(), cause }
    }
}
