//! Extended attributes of the file behind any descriptor, `O_PATH` included.
//!
//! A descriptor that was opened with `O_PATH` is refused by the calls that take one (`EBADF`): only then its name in proc(5) is
//! walked, which costs many times as much. Invariant: absence is `None`; every other refusal is an error.

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

/// Makes a call and counts it.
fn counted<T>(call: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    calls::count(1);
    call()
}

/// Fills a buffer, and the largest one where the first was too small.
fn fill(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; VALUE_GUESS_BYTES];
    let mut result = read(&mut buffer);
    if result == Err(Errno::RANGE) {
        buffer.resize(VALUE_BYTES_MAX, 0);
        result = read(&mut buffer);
    }
    buffer.truncate(result?);
    Ok(buffer)
}

/// The value of an attribute; `None` where it is absent or the filesystem has no attributes. See getxattr(2).
pub fn value(fd: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Vec<u8>>> {
    let found = fill(|buffer| match counted(|| rustix::fs::fgetxattr(fd, name, &mut *buffer)) {
        Err(Errno::BADF) => counted(|| rustix::fs::getxattr(proc_path(fd), name, &mut *buffer)),
        other => other,
    });
    match found {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(os("getxattr")(errno)),
    }
}

/// All names, each ended by NUL; empty where the filesystem has no attributes. See listxattr(2).
pub fn names(fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    listed(fill(|buffer| match counted(|| rustix::fs::flistxattr(fd, &mut *buffer)) {
        Err(Errno::BADF) => counted(|| rustix::fs::listxattr(proc_path(fd), &mut *buffer)),
        other => other,
    }))
}

/// The same for a name in a directory, in one call instead of an opening and a reading. See llistxattr(2).
pub fn names_at(parent: BorrowedFd<'_>, name: &OsStr) -> Result<Vec<u8>> {
    let path = proc_path(parent).join(name);
    listed(fill(|buffer| counted(|| rustix::fs::llistxattr(&path, &mut *buffer))))
}

fn listed(names: Result<Vec<u8>, Errno>) -> Result<Vec<u8>> {
    match names {
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        other => other.map_err(os("listxattr")),
    }
}

/// Sets an attribute; `flags` are `XATTR_CREATE` and `XATTR_REPLACE`. See setxattr(2).
pub fn set(fd: BorrowedFd<'_>, name: &OsStr, value: &[u8], flags: u32) -> Result<()> {
    fault::check("setxattr")?;
    let flags = XattrFlags::from_bits_retain(flags);
    let done = match counted(|| rustix::fs::fsetxattr(fd, name, value, flags)) {
        Err(Errno::BADF) => counted(|| rustix::fs::setxattr(proc_path(fd), name, value, flags)),
        other => other,
    };
    done.map_err(os("setxattr"))
}

/// Removes an attribute; an absent one is an error (`ENODATA`). See removexattr(2).
pub fn remove(fd: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    fault::check("removexattr")?;
    let done = match counted(|| rustix::fs::fremovexattr(fd, name)) {
        Err(Errno::BADF) => counted(|| rustix::fs::removexattr(proc_path(fd), name)),
        other => other,
    };
    done.map_err(os("removexattr"))
}
