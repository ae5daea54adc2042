//! Extended attributes of the file behind any descriptor, `O_PATH` included.
//!
//! Invariant: absence is `None`; every other refusal is an error.

use super::open::proc_path;
use super::{calls, fault, os};
use crate::error::Result;
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::BorrowedFd;

/// Bytes tried first: most values are smaller.
const VALUE_GUESS_BYTES: usize = 256;
/// The largest value and the largest list that Linux allows (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const VALUE_BYTES_MAX: usize = 65536;

/// The value of an attribute; `None` where it is absent or the filesystem has no attributes. See getxattr(2).
pub fn value(fd: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Vec<u8>>> {
    let path = proc_path(fd);
    let mut buffer = vec![0; VALUE_GUESS_BYTES];
    calls::count(1);
    let mut result = rustix::fs::getxattr(&path, name, buffer.as_mut_slice());
    if result == Err(Errno::RANGE) {
        buffer.resize(VALUE_BYTES_MAX, 0);
        calls::count(1);
        result = rustix::fs::getxattr(&path, name, buffer.as_mut_slice());
    }
    match result {
        Ok(length) => {
            buffer.truncate(length);
            Ok(Some(buffer))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(os("getxattr")(errno)),
    }
}

/// All names, each ended by NUL; empty where the filesystem has no attributes. See listxattr(2).
pub fn names(fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let path = proc_path(fd);
    let mut buffer = vec![0; VALUE_GUESS_BYTES];
    calls::count(1);
    let mut result = rustix::fs::listxattr(&path, buffer.as_mut_slice());
    if result == Err(Errno::RANGE) {
        buffer.resize(VALUE_BYTES_MAX, 0);
        calls::count(1);
        result = rustix::fs::listxattr(&path, buffer.as_mut_slice());
    }
    match result {
        Ok(length) => {
            buffer.truncate(length);
            Ok(buffer)
        }
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(errno) => Err(os("listxattr")(errno)),
    }
}

/// Sets an attribute; `flags` are `XATTR_CREATE` and `XATTR_REPLACE`. See setxattr(2).
pub fn set(fd: BorrowedFd<'_>, name: &OsStr, value: &[u8], flags: u32) -> Result<()> {
    fault::check("setxattr")?;
    calls::count(1);
    rustix::fs::setxattr(proc_path(fd), name, value, XattrFlags::from_bits_retain(flags)).map_err(os("setxattr"))
}

/// Removes an attribute; an absent one is an error (`ENODATA`). See removexattr(2).
pub fn remove(fd: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    fault::check("removexattr")?;
    calls::count(1);
    rustix::fs::removexattr(proc_path(fd), name).map_err(os("removexattr"))
}
