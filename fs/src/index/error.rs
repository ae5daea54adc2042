//! Why an index cannot be built or used.
//!
//! Owns the sentences. Invariant: each names the file, the cause and the way out.

use crate::error::Error;
use crate::layer::SetupError;
use std::path::PathBuf;

/// What went wrong with an index.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences say it")]
pub enum IndexError {
    #[error("{}: {error}: check that the file exists and that you may read it", path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{} is not an index of layers: name a file that `lamina-fs index build` has written", path.display())]
    NotAnIndex { path: PathBuf },
    #[error("index {} has version {found} and this program knows {known}: build it again with this program, or use a newer one", path.display())]
    OtherVersion { path: PathBuf, found: u32, known: u32 },
    #[error("index {} is truncated: it should have {expected} bytes and has {found}; build it again", path.display())]
    Truncated { path: PathBuf, expected: u64, found: u64 },
    #[error("index {} is damaged ({what}): build it again", path.display())]
    Damaged { path: PathBuf, what: &'static str },
    #[error("index {} is of {built} layers and {given} are given: name the layers it was built of, in their order, or build it again", path.display())]
    LayerCount { path: PathBuf, built: usize, given: usize },
    #[error("index {} was built of another lower layer number {number} ({what} differs): name the layers it was built of, in their order, or build it again", path.display())]
    OtherLayer { path: PathBuf, number: usize, what: &'static str },
    #[error("index {}: {error}: check that you may write there and that there is room", path.display())]
    Write { path: PathBuf, error: std::io::Error },
    #[error("the layers hold too much for one index ({what}): mount them without one")]
    TooLarge { what: &'static str },
    #[error("{} lies on another filesystem than its layer: unmount what is mounted there, or copy it into the layer", path.display())]
    OtherDevice { path: PathBuf },
    #[error("{}: {error}: an index needs to read every file of the layers", path.display())]
    Walk { path: PathBuf, error: Error },
    #[error(transparent)]
    Layers(#[from] SetupError),
}
