//! What can go wrong in the store, in whole sentences, and of which of containerd's kinds it is.
//!
//! Owns the sentences. Must not know gRPC. Invariant: each names the object and the cause, and the way out where there is one.

use std::io;
use std::path::{Path, PathBuf};

/// Result of an operation on the store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kinds that containerd tells apart (`errdefs`); only these cross the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A key, parent or digest is not there.
    NotFound,
    /// A key or name is in use.
    AlreadyExists,
    /// The request can never succeed.
    InvalidArgument,
    /// The object is in the wrong state.
    FailedPrecondition,
    /// The disk, or another bound, is full.
    ResourceExhausted,
    /// Somebody else uses it; later it may succeed.
    Unavailable,
    /// What is on disk contradicts itself.
    DataLoss,
    /// The kernel or the database refused.
    Internal,
}

/// Why an operation on the store was refused or failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences say it")]
#[non_exhaustive]
pub enum Error {
    #[error("snapshot {key:?} does not exist")]
    NoSnapshot { key: String },
    #[error("parent snapshot {key:?} does not exist")]
    NoParent { key: String },
    #[error("snapshot {key:?} already exists: remove it first, or use another key")]
    SnapshotExists { key: String },
    #[error("parent snapshot {key:?} is {kind}: only a committed snapshot can have children")]
    ParentNotCommitted { key: String, kind: &'static str },
    #[error("snapshot {key:?} is {kind}: only an active snapshot can be committed")]
    NotActive { key: String, kind: &'static str },
    #[error("snapshot {key:?} is committed: only active snapshots and views can be mounted; prepare one on top of it")]
    NotMountable { key: String },
    #[error("snapshot {key:?} was prepared on parent {parent:?} and cannot be committed onto {wanted:?}")]
    OtherParent { key: String, parent: String, wanted: String },
    #[error("cannot remove snapshot {key:?}: it has children; remove them first")]
    HasChildren { key: String },
    #[error("{field:?} of a snapshot cannot be changed: only labels and labels.KEY can")]
    ImmutableField { field: String },
    #[error("a snapshot needs a key that is not empty")]
    EmptyKey,
    #[error("bad filter {filter:?}: {cause}")]
    BadFilter { filter: String, cause: String },
    #[error("{text:?} is not a digest: sha256: and 64 lower-case hexadecimal digits are expected")]
    BadDigest { text: String },
    #[error("layer {chain} does not exist in the store")]
    NoLayer { chain: String },
    #[error("image {reference:?} does not exist in the store")]
    NoImage { reference: String },
    #[error("blob {digest} does not exist in the store")]
    NoBlob { digest: String },
    #[error(
        "blob {expected} has other content: its digest is {found}; fetch it again, or distrust where it comes from"
    )]
    WrongDigest { expected: String, found: String },
    #[error("blob {digest} is not whole: {size} bytes are expected, and {found} came")]
    WrongSize { digest: String, size: u64, found: u64 },
    #[error("layer {chain} is not what its parent and {diff} make: that would be {expected}")]
    WrongChain { chain: String, diff: String, expected: String },
    #[error("snapshot {key:?} is not served: {sentence}")]
    Server { key: String, sentence: String },
    #[error("lamina-fs is neither beside this program nor in PATH: install it")]
    NoServerProgram,
    #[error("layer {chain} is in the store already; nothing needs to be fetched")]
    LayerPresent { chain: String },
    #[error("the store {} is in use by {holder}: stop that first, or use another root", root.display())]
    InUse { root: PathBuf, holder: String },
    #[error("the store {} has schema {found} and this program knows {known} at most: use the newer release that wrote it", root.display())]
    NewerSchema { root: PathBuf, found: u64, known: u64 },
    #[error("there is no place for a store: neither XDG_DATA_HOME nor HOME is set; name one on the command line")]
    NoRoot,
    #[error("the store is damaged: {what}; run `lamina-snapshotter fsck`")]
    Damaged { what: String },
    #[error("cannot {action} {}: {cause}", path.display())]
    Io { action: &'static str, path: PathBuf, cause: io::Error },
    #[error("the metadata of the store: {0}")]
    Metadata(Box<redb::Error>),
}

impl Error {
    /// For `map_err` on a call of the standard library.
    pub fn io<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Error {
        let path = path.to_owned();
        move |cause| Error::Io { action, path, cause: cause.into() }
    }

    /// Which of containerd's kinds it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::NoSnapshot { .. }
            | Error::NoParent { .. }
            | Error::NoLayer { .. }
            | Error::NoImage { .. }
            | Error::NoBlob { .. } => ErrorKind::NotFound,
            Error::SnapshotExists { .. } | Error::LayerPresent { .. } => ErrorKind::AlreadyExists,
            Error::ParentNotCommitted { .. }
            | Error::OtherParent { .. }
            | Error::ImmutableField { .. }
            | Error::EmptyKey
            | Error::BadFilter { .. }
            | Error::BadDigest { .. }
            | Error::WrongDigest { .. }
            | Error::WrongSize { .. }
            | Error::WrongChain { .. } => ErrorKind::InvalidArgument,
            Error::NotActive { .. } | Error::NotMountable { .. } | Error::HasChildren { .. } => {
                ErrorKind::FailedPrecondition
            }
            Error::InUse { .. } | Error::Server { .. } => ErrorKind::Unavailable,
            Error::NewerSchema { .. } | Error::NoRoot | Error::NoServerProgram => ErrorKind::FailedPrecondition,
            Error::Damaged { .. } => ErrorKind::DataLoss,
            Error::Io { cause, .. } => io_kind(cause),
            Error::Metadata(error) => match error.as_ref() {
                redb::Error::Io(cause) => io_kind(cause),
                _ => ErrorKind::Internal,
            },
        }
    }
}

fn io_kind(cause: &io::Error) -> ErrorKind {
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::ResourceExhausted,
        _ => ErrorKind::Internal,
    }
}

impl<E: Into<redb::Error>> From<E> for Error {
    fn from(error: E) -> Error {
        Error::Metadata(Box::new(error.into()))
    }
}
