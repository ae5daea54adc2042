//! What can be wrong with the layers that a mount is asked for.
//!
//! Owns the sentences. Invariant: each names the path, the cause and the way out, and is told before anything changed.

use crate::error::Error;
use std::path::PathBuf;

/// Why a stack of layers cannot be mounted.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences say it")]
pub enum SetupError {
    #[error("no lower layer is given: pass -o lowerdir=DIR[:DIR...]")]
    NoLower,
    #[error("{count} lower layers are given and {max} is the most: merge some of them")]
    TooManyLowers { count: usize, max: usize },
    #[error("lower layer {}: {error}: check that the directory exists and that you may read it", path.display())]
    Lower { path: PathBuf, error: Error },
    #[error("upper directory {}: {error}: create it, or check that you may write to it", path.display())]
    Upper { path: PathBuf, error: Error },
    #[error("work directory {}: {error}: create it beside the upper directory, or check that you may write to it", path.display())]
    Work { path: PathBuf, error: Error },
    #[error("upper directory {} is the lower layer {}: a layer cannot be both; give the upper layer a directory of its own", upper.display(), lower.display())]
    UpperIsLower { upper: PathBuf, lower: PathBuf },
    #[error("{what} {} and {other} {} lie inside each other: writing to one would change the other; give each a directory of its own", path.display(), other_path.display())]
    Overlap { what: &'static str, path: PathBuf, other: &'static str, other_path: PathBuf },
    #[error("work directory {} and upper directory {} are on different filesystems or mounts: files are moved between them, so put them side by side", work.display(), upper.display())]
    WorkElsewhere { work: PathBuf, upper: PathBuf },
    #[error("work directory {} is in use by another mount: unmount that one first, or give this mount its own upper and work directory", path.display())]
    WorkInUse { path: PathBuf },
    #[error("work directory {} was used by a mount with \"{feature}\" that this mount cannot honour: after a volatile mount the data may be incomplete after a crash; if you accept that, remove {}", path.display(), marker.display())]
    Incompatible { path: PathBuf, feature: String, marker: PathBuf },
    #[error("{error}")]
    Index { error: Box<dyn std::error::Error + Send + Sync> },
    #[error("/proc is not usable ({error}): mount it, Lamina reaches files through /proc/self/fd")]
    NoProc { error: Error },
}
