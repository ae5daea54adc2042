//! Attributes of what was just made: through a descriptor that is open for data or listing, or by name, where the calls for
//! any descriptor would cost a path walk through proc(5).
//!
//! Invariant: never follows a link.

use super::stat::Timestamp;
use super::{fault, os};
use crate::error::Result;
use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use std::ffi::OsStr;
use std::os::fd::BorrowedFd;

/// Changes the permission bits. See fchmod(2).
pub fn set_mode(open: BorrowedFd<'_>, mode: u32) -> Result<()> {
    fault::check("chmod")?;
    rustix::fs::fchmod(open, Mode::from_raw_mode(mode & 0o7777)).map_err(os("chmod"))
}

/// Changes owner and group. See fchown(2).
pub fn set_owner(open: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    fault::check("chown")?;
    rustix::fs::fchown(open, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(os("chown"))
}

/// Changes owner and group of a name. See fchownat(2), `AT_SYMLINK_NOFOLLOW`.
pub fn set_owner_at(parent: BorrowedFd<'_>, name: &OsStr, uid: u32, gid: u32) -> Result<()> {
    fault::check("chown")?;
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(os("chown"))
}

/// Changes the permission bits of a name that is no symbolic link: fchmodat(2) would follow one.
pub fn set_mode_at(parent: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<()> {
    fault::check("chmod")?;
    rustix::fs::chmodat(parent, name, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty()).map_err(os("chmod"))
}

/// Changes both times. See futimens(3).
pub fn set_times(open: BorrowedFd<'_>, atime: Timestamp, mtime: Timestamp) -> Result<()> {
    fault::check("utimens")?;
    rustix::fs::futimens(open, &times(atime, mtime)).map_err(os("futimens"))
}

/// Changes both times of a name. See utimensat(2), `AT_SYMLINK_NOFOLLOW`.
pub fn set_times_at(parent: BorrowedFd<'_>, name: &OsStr, atime: Timestamp, mtime: Timestamp) -> Result<()> {
    fault::check("utimens")?;
    rustix::fs::utimensat(parent, name, &times(atime, mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(os("utimensat"))
}

fn times(atime: Timestamp, mtime: Timestamp) -> Timestamps {
    let raw = |at: Timestamp| Timespec { tv_sec: at.seconds, tv_nsec: i64::from(at.nanoseconds) };
    Timestamps { last_access: raw(atime), last_modification: raw(mtime) }
}

/// Sets an attribute. See fsetxattr(2).
pub fn set_xattr(open: BorrowedFd<'_>, name: &OsStr, value: &[u8]) -> Result<()> {
    fault::check("setxattr")?;
    rustix::fs::fsetxattr(open, name, value, XattrFlags::empty()).map_err(os("setxattr"))
}

/// The bits that the process's mask takes from the mode of new files; all where it is not told.
pub fn creation_mask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o777)
}
