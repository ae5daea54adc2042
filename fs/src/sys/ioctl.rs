//! The ioctls by which a Lamina mount tells what it was asked.
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
