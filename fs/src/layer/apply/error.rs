//! Why a changeset is refused, in sentences.
//!
//! Invariant: whoever reads one knows the entry, the cause and the way out.

use crate::error::Error;
use crate::layer::archive::{ArchiveError, Name};

/// Why a changeset cannot be applied.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences say it")]
pub enum ApplyError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("entry {entry}: {cause}")]
    Entry { entry: Name, cause: Box<ApplyError> },
    #[error("its name leads out of the layer by \"..\": do not use this image, it was made to write elsewhere")]
    Escapes,
    #[error("its name has more than {max} bytes in one component, or in all")]
    NameTooLong { max: usize },
    #[error("it lies more than {max} directories deep")]
    TooDeep { max: usize },
    #[error(
        "its parent {parent} is a symbolic link or a file in the same layer: do not use this image, nothing may be written through a link"
    )]
    ParentNotDirectory { parent: Name },
    #[error("it hides \".\" or \"..\": do not use this image, it was made to write elsewhere")]
    WhiteoutOfDots,
    #[error("the root of the layer must be a directory")]
    RootNotDirectory,
    #[error("it is a hard link to {target}, which leads out of the layer: do not use this image")]
    LinkOut { target: Name },
    #[error(
        "it is a hard link to {target}, which this layer does not have as a file: the layer is damaged, fetch or build it again"
    )]
    LinkTarget { target: Name },
    #[error(
        "it is a device, which this user may not make: unpack as root, or with owners and devices kept in attributes"
    )]
    Device,
    #[error(
        "its owner {uid}:{gid} is not mapped in this user namespace: give the user a larger range in /etc/subuid and /etc/subgid, or unpack with owners kept in attributes"
    )]
    OwnerNotMapped { uid: u32, gid: u32 },
    #[error("with it the layer has more than {max} bytes of files: if you trust the image, raise the limit")]
    TooManyBytes { max: u64 },
    #[error("with it the layer has more than {max} files: if you trust the image, raise the limit")]
    TooManyFiles { max: u64 },
    #[error("{0}")]
    Os(#[from] Error),
}

impl ApplyError {
    /// Names the entry, where the cause does not yet.
    pub fn at(self, path: &[u8]) -> Self {
        match self {
            ApplyError::Entry { .. } | ApplyError::Archive(_) => self,
            cause => ApplyError::Entry { entry: Name::new(path), cause: Box::new(cause) },
        }
    }
}
