//! Descriptors by number: those that were inherited, of which nothing but the number is known.

use super::check;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Marks every descriptor from `first` upwards close-on-exec. Source: close_range(2), `CLOSE_RANGE_CLOEXEC`.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: no memory is passed, and close-on-exec closes nothing that is in use.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })?;
    Ok(())
}

/// `NS_GET_NSTYPE` of linux/nsfs.h.
const NAMESPACE_TYPE: libc::c_ulong = 0xb703;

/// The `CLONE_NEW*` bit of an open namespace. Source: ioctl_nsfs(2).
pub fn namespace_type(fd: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    // SAFETY: this request takes no argument.
    let kind = check(unsafe { libc::ioctl(fd.as_raw_fd(), NAMESPACE_TYPE) }.into())?;
    Ok(kind as libc::c_int)
}
