//! Why a directory cannot be written as a changeset, in sentences.

use crate::error::Error;
use std::path::PathBuf;

/// Why a directory cannot be written as a changeset.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences say it")]
pub enum DiffError {
    #[error("{} cannot be read: {error}", path.display())]
    Read { path: PathBuf, error: Error },
    #[error("{} cannot be written to the archive: {error}", path.display())]
    Write { path: PathBuf, error: std::io::Error },
    #[error("{} only points to content of a lower layer (redirect_dir or metacopy of the kernel's overlayfs): write the layer through a mount without these options", path.display())]
    Elsewhere { path: PathBuf },
    #[error("{} lies more than {max} directories deep", path.display())]
    TooDeep { path: PathBuf, max: usize },
}
