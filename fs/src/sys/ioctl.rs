//! The ioctls by which a Lamina mount tells what it was asked, and the one that asks the FUSE device what it can.
//!
//! Owns their numbers. Must not know what the bytes mean. Invariant: the size is part of the number, so that a reader and
//! a server that disagree on it get ENOTTY and not each other's garbage.
#![expect(unsafe_code, reason = "an ioctl of our own has no safe wrapper")]

use super::os;
use crate::error::Result;
use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes of one answer. FUSE carries up to 16,383.
pub const STATISTICS_BYTES: usize = 3616;

/// One answer.
pub type StatisticsBytes = [u8; STATISTICS_BYTES];

/// Free in the kernel's list, Documentation/userspace-api/ioctl/ioctl-number.rst.
const TYPE: u8 = 0xfa;

const STATISTICS_NUMBER: u8 = 1;
const RESET_NUMBER: u8 = 2;

/// `_IOR(0xfa, 1, char[3616])`: read the counters.
pub const READ_STATISTICS: u32 = nix::request_code_read!(TYPE, STATISTICS_NUMBER, STATISTICS_BYTES) as u32;

/// `_IOR(0xfa, 2, char[3616])`: read them and set them to zero.
pub const RESET_STATISTICS: u32 = nix::request_code_read!(TYPE, RESET_NUMBER, STATISTICS_BYTES) as u32;

/// Bytes of one answer about usage.
pub const USAGE_BYTES: usize = 24;

/// One answer about usage.
pub type UsageBytes = [u8; USAGE_BYTES];

const USAGE_NUMBER: u8 = 3;

/// `_IOR(0xfa, 3, char[24])`: what the upper layer takes.
pub const READ_USAGE: u32 = nix::request_code_read!(TYPE, USAGE_NUMBER, USAGE_BYTES) as u32;

nix::ioctl_read!(usage_ioctl, TYPE, USAGE_NUMBER, UsageBytes);
nix::ioctl_read!(statistics_ioctl, TYPE, STATISTICS_NUMBER, StatisticsBytes);
nix::ioctl_read!(reset_ioctl, TYPE, RESET_NUMBER, StatisticsBytes);

/// Asks the mount behind the descriptor of its root directory. See ioctl(2).
pub fn statistics(root: BorrowedFd<'_>, reset: bool) -> Result<StatisticsBytes> {
    let mut bytes = [0; STATISTICS_BYTES];
    // SAFETY: the number carries the size of the array, and the kernel writes no more than that.
    let asked = unsafe {
        match reset {
            false => statistics_ioctl(root.as_raw_fd(), &raw mut bytes),
            true => reset_ioctl(root.as_raw_fd(), &raw mut bytes),
        }
    };
    asked.map(|_| bytes).map_err(|errno| os("ioctl")(Errno::from_raw_os_error(errno as i32)))
}

/// Asks the mount behind the descriptor of its root directory what its upper layer takes.
pub fn usage(root: BorrowedFd<'_>) -> Result<UsageBytes> {
    let mut bytes = [0; USAGE_BYTES];
    // SAFETY: the number carries the size of the array, and the kernel writes no more than that.
    let asked = unsafe { usage_ioctl(root.as_raw_fd(), &raw mut bytes) };
    asked.map(|_| bytes).map_err(|errno| os("ioctl")(Errno::from_raw_os_error(errno as i32)))
}

/// `struct fuse_backing_map` of include/uapi/linux/fuse.h.
#[repr(C)]
pub struct BackingMap {
    fd: i32,
    flags: u32,
    padding: u64,
}

/// `FUSE_DEV_IOC_MAGIC` of the same file.
const FUSE_TYPE: u8 = 229;
nix::ioctl_write_ptr!(backing_open_ioctl, FUSE_TYPE, 1, BackingMap);
nix::ioctl_write_ptr!(backing_close_ioctl, FUSE_TYPE, 2, u32);

/// Whether the kernel takes `file` as the backing of a file of the mount that `device` serves; it is given back at once. See
/// Documentation/filesystems/fuse/fuse-passthrough.rst.
pub fn try_backing(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> Result<()> {
    let map = BackingMap { fd: file.as_raw_fd(), flags: 0, padding: 0 };
    let failed = |errno: nix::errno::Errno| os("ioctl")(Errno::from_raw_os_error(errno as i32));
    // SAFETY: the number carries the size of the structure, which the kernel only reads.
    let id = unsafe { backing_open_ioctl(device.as_raw_fd(), &raw const map) }.map_err(failed)?;
    let id = id.unsigned_abs();
    // SAFETY: as above; the id is one that was just given out and that nobody else knows.
    unsafe { backing_close_ioctl(device.as_raw_fd(), &raw const id) }.map(drop).map_err(failed)
}
