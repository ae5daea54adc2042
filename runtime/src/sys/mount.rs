//! Changing the attributes of a mount by descriptor.

use super::check;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What mount_setattr(2) is asked to do: bits of `MOUNT_ATTR_*`, and one of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE` or 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Bits that are set.
    pub set: u64,
    /// Bits that are cleared.
    pub clear: u64,
    /// The propagation, or 0 to leave it.
    pub propagation: u64,
}

/// Changes the mount behind `fd`, and with `recursive` all below it. `user_namespace` goes with `MOUNT_ATTR_IDMAP`.
///
/// Source: mount_setattr(2).
pub fn set_attributes(
    fd: BorrowedFd<'_>,
    attributes: Attributes,
    recursive: bool,
    user_namespace: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let argument = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: attributes.propagation,
        userns_fd: user_namespace.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the structure lives through the call, and its size is passed with it.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const argument,
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}
