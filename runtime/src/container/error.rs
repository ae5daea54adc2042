//! What can go wrong with a container, in docker's words where it has some, and the exit code that says so.
//!
//! Invariant: a sentence names the object, the cause and, where there is one, the way out.

use std::io;
use std::path::{Path, PathBuf};

/// What every fallible function of this module answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Docker's exit code for an error of the front end itself.
pub const EXIT_OWN_ERROR: u8 = 125;
/// Docker's exit code for a command that is there and cannot be run.
pub const EXIT_CANNOT_RUN: u8 = 126;
/// Docker's exit code for a command that is not there.
pub const EXIT_NOT_FOUND: u8 = 127;

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences say it")]
#[non_exhaustive]
pub enum Error {
    #[error("No such container: {text}")]
    NoSuchContainer { text: String },
    #[error("Multiple IDs found with provided prefix: {text}; give more digits")]
    Ambiguous { text: String },
    #[error(
        "Invalid container name ({text}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, and no more than {bytes_max} bytes"
    )]
    BadName { text: String, bytes_max: usize },
    #[error(
        "Conflict. The container name \"{name}\" is already in use by container {by}. You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameInUse { name: String, by: String },
    #[error("{text:?} is not the ID of a container: 64 lower-case hexadecimal digits are expected")]
    BadId { text: String },
    /// What was asked for cannot be done.
    #[error("{sentence}")]
    Usage { sentence: String },
    #[error("cannot mount the root filesystem: {sentence}")]
    Filesystem { sentence: String },
    #[error("Container {name} is not running")]
    NotRunning { name: String },
    #[error(
        "cannot remove container \"/{name}\": container is running: stop the container before removing or force remove"
    )]
    Running { name: String },
    /// The command of a container, or of an exec, is not in it.
    #[error("{sentence}")]
    CommandNotFound { sentence: String },
    /// The command is there, and the kernel does not run it.
    #[error("{sentence}")]
    CannotRun { sentence: String },
    /// What the layers of a container or an image hold, or lack.
    #[error("{sentence}")]
    Layers { sentence: String },
    #[error("Could not find the file {} in the container", path.display())]
    NoSuchPath { path: PathBuf },
    #[error("{}: more than 40 links on the way", path.display())]
    TooManyLinks { path: PathBuf },
    #[error("{} lies more than {max} directories deep", path.display())]
    TooDeep { path: PathBuf, max: usize },
    #[error("{sentence}")]
    Look { sentence: String },
    #[error("in the container: {sentence}")]
    Inside { sentence: String },
    #[error("cannot copy to {}: {why}", path.display())]
    Destination { path: PathBuf, why: &'static str },
    #[error("cannot write {}: {cause}", path.display())]
    Unwritten { path: PathBuf, cause: io::Error },
    #[error("cannot {action} {}: {cause}", path.display())]
    Io { action: &'static str, path: PathBuf, cause: io::Error },
    #[error("{}: {cause}", path.display())]
    Json { path: PathBuf, cause: serde_json::Error },
    #[error(transparent)]
    Store(#[from] lamina_snapshotter::error::Error),
    #[error(transparent)]
    Image(#[from] lamina_snapshotter::image::ImageError),
    #[error(transparent)]
    Oci(#[from] crate::error::Error),
}

impl Error {
    /// For `map_err` on a call of the standard library.
    pub fn io<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Error {
        let path = path.to_owned();
        move |cause| Error::Io { action, path, cause: cause.into() }
    }

    /// What was asked for cannot be done, and why.
    pub fn usage(sentence: impl Into<String>) -> Error {
        Error::Usage { sentence: sentence.into() }
    }

    /// An error of the runtime; one about the container's command is told apart, as docker answers it with codes of its own.
    pub fn of_start(error: crate::error::Error) -> Error {
        let sentence = error.to_string();
        let names_command = sentence.starts_with("exec");
        let missing = ["executable file not found", "no such file or directory"];
        match names_command {
            true if missing.iter().any(|words| sentence.contains(words)) => Error::CommandNotFound { sentence },
            true => Error::CannotRun { sentence },
            false => Error::Oci(error),
        }
    }

    /// What the command `lamina` answers with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::CommandNotFound { .. } => EXIT_NOT_FOUND,
            Error::CannotRun { .. } => EXIT_CANNOT_RUN,
            _ => EXIT_OWN_ERROR,
        }
    }
}
