//! What can go wrong in a layer or in the union, in domain words.
//!
//! Owns the error type of everything below `fuse`. Must not know FUSE: which errno a caller sees is decided in
//! `fuse/errno.rs` only. Invariant: a value is `Copy` and carries no text, so failing costs nothing.

/// Result of an operation on a layer or on the union.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation was refused or failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The inode number is not one that the union handed out, or it was forgotten.
    #[error("no such inode")]
    NoSuchInode,
    /// The name does not exist where it must.
    #[error("no such file or directory")]
    NotFound,
    /// The name exists where it must not.
    #[error("file exists")]
    Exists,
    /// The directory still shows entries.
    #[error("directory not empty")]
    NotEmpty,
    /// A directory is needed here.
    #[error("not a directory")]
    NotDirectory,
    /// A directory is not allowed here.
    #[error("is a directory")]
    IsDirectory,
    /// The mount has no upper layer.
    #[error("the mount is read-only")]
    ReadOnly,
    /// A directory that a lower layer holds cannot be renamed.
    #[error("the directory is held by a lower layer")]
    CrossLayer,
    /// The name would be read as a whiteout or opaque mark.
    #[error("the name is reserved for whiteouts")]
    InvalidName,
    /// An argument is out of its range.
    #[error("invalid argument")]
    InvalidArgument,
    /// The name is longer than 255 bytes.
    #[error("file name too long")]
    NameTooLong,
    /// The operation makes no sense for this kind of file or is switched off.
    #[error("operation not supported")]
    NotSupported,
    /// The caller or the server lacks the privilege.
    #[error("operation not permitted")]
    NotPermitted,
    /// The extended attribute does not exist.
    #[error("no such attribute")]
    NoAttribute,
    /// A regular file is needed here.
    #[error("not a regular file")]
    NotRegular,
    /// The offset or size is beyond what a file can hold.
    #[error("file too large")]
    TooLarge,
    /// The operation panicked; the server goes on.
    #[error("internal error")]
    Panicked,
    /// The kernel refused a system call on a layer.
    #[error("{call}: {}", std::io::Error::from_raw_os_error(*errno))]
    Os {
        /// Name of the system call.
        call: &'static str,
        /// Its errno.
        errno: i32,
    },
}

impl Error {
    /// The errno, where the kernel gave one.
    pub fn errno(self) -> Option<i32> {
        match self {
            Error::Os { errno, .. } => Some(errno),
            _ => None,
        }
    }

    /// Whether the kernel answered with this errno.
    pub fn is(self, errno: i32) -> bool {
        self.errno() == Some(errno)
    }
}
