//! Which errno a caller sees.
//!
//! Owns the one table from domain words to errno. Invariant: it is exhaustive, so a new word does not compile until its
//! errno is chosen here.

use super::counters;
use crate::error::Error;
use fuser::Errno;

/// The errno that answers a request which failed with `error`; counts the failure, as each comes through here once.
pub(super) fn errno(error: Error) -> Errno {
    counters::failed();
    match error {
        Error::NoSuchInode => Errno::ESTALE,
        Error::NotFound => Errno::ENOENT,
        Error::Exists => Errno::EEXIST,
        Error::NotEmpty => Errno::ENOTEMPTY,
        Error::NotDirectory => Errno::ENOTDIR,
        Error::IsDirectory => Errno::EISDIR,
        Error::ReadOnly => Errno::EROFS,
        // What mv(1) and rename(2) callers of the kernel's overlayfs know how to handle: copy, then delete.
        Error::CrossLayer => Errno::EXDEV,
        Error::InvalidName | Error::InvalidArgument | Error::NotRegular => Errno::EINVAL,
        Error::NameTooLong => Errno::ENAMETOOLONG,
        Error::NotSupported => Errno::EOPNOTSUPP,
        Error::NotPermitted => Errno::EPERM,
        Error::NoAttribute => Errno::ENODATA,
        Error::TooLarge => Errno::EFBIG,
        Error::Panicked => Errno::EIO,
        // ENOSYS would make the kernel stop asking for ever, for every file: it is never a layer's to say.
        Error::Os { errno: libc::ENOSYS, .. } => Errno::EOPNOTSUPP,
        Error::Os { errno, .. } => Errno::from_i32(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_of_the_kernel_is_passed_on() {
        assert_eq!(errno(Error::Os { call: "openat", errno: libc::ENOSPC }).code(), libc::ENOSPC);
    }

    #[test]
    fn enosys_of_a_layer_does_not_switch_the_operation_off() {
        assert_eq!(errno(Error::Os { call: "fallocate", errno: libc::ENOSYS }).code(), libc::EOPNOTSUPP);
    }
}
