//! What can go wrong, in the words that callers look for.
//!
//! Owns the wording: containerd's shim, Podman and Buildah find out what happened by searching the text for runc's phrases, so
//! those phrases stand here, once. Invariant: every error names its object and its cause.

use std::io;

/// What every fallible function of this crate answers.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No container of that name under the state directory.
    #[error("container {0:?} does not exist: container does not exist")]
    NoSuchContainer(String),
    /// The name is taken.
    #[error("container with given ID already exists: {0:?}; delete it first, or choose another ID")]
    Exists(String),
    /// The verb wants a running container.
    #[error("container not running: {id:?} is {status}")]
    NotRunning {
        /// The container.
        id: String,
        /// What it is instead.
        status: String,
    },
    /// The verb wants a stopped container.
    #[error("cannot delete container {id:?} that is not stopped: {status}; kill it first, or delete with --force")]
    NotStopped {
        /// The container.
        id: String,
        /// What it is instead.
        status: String,
    },
    /// The configuration asks for something that it must not.
    #[error("{place}: {problem}")]
    Invalid {
        /// The property, option or argument.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A property of the specification that this runtime, or this machine, does not have.
    #[error("{property} is not supported: {reason}")]
    Unsupported {
        /// The property as config.json spells it.
        property: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// The kernel refused.
    #[error("{doing}: {}", words(source))]
    Os {
        /// What was being done, and to what.
        doing: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file that should be JSON of a known shape is not.
    #[error("{place}: {source}")]
    Json {
        /// The file.
        place: String,
        /// Where and how.
        source: serde_json::Error,
    },
    /// A hook failed.
    #[error("{kind} hook {path}: {problem}")]
    Hook {
        /// As config.json spells it.
        kind: &'static str,
        /// The program.
        path: String,
        /// Exit status, time out, or why it did not start.
        problem: String,
    },
    /// What the process inside the container reported before it gave up.
    #[error("{0}")]
    Inside(String),
}

impl Error {
    /// An error about one property, option or argument.
    pub fn invalid(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Error::Invalid { place: place.into(), problem: problem.into() }
    }

    /// A known property that we do not have.
    pub fn unsupported(property: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Unsupported { property: property.into(), reason: reason.into() }
    }

    /// The kernel's errno, where it is the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Os { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// Names what a system call was for.
pub trait Doing<T> {
    /// Turns the kernel's errno into an [`Error::Os`].
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::Os { doing: what(), source: error.into() })
    }
}

/// The kernel's words without Rust's number behind them, in lower case as callers compare them.
fn words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => {
            let text = nix::errno::Errno::from_raw(number).desc();
            let mut letters = text.chars();
            letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
        }
        None => error.to_string(),
    }
}
