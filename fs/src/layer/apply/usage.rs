//! What a layer takes on disk, counted while it is written.
//!
//! Invariant: the counts are those of `measure` on the result, on a filesystem of 4 KiB blocks.

use crate::error::Result;
use crate::layer::work::list;
use crate::sys::stat::Stat;
use crate::sys::{open, stat};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};

/// Bytes of a block: what the data of a file is rounded up to, and what a directory counts.
const BLOCK_BYTES: u64 = 4096;

/// Space and number of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Data without holes, each file rounded up to blocks; a block for each directory.
    pub bytes: u64,
    /// Files of every kind, whiteouts included; one with several names counts once.
    pub inodes: u64,
}

impl Usage {
    /// One directory.
    pub const DIR: Usage = Usage { bytes: BLOCK_BYTES, inodes: 1 };
    /// Anything without data.
    pub const NODE: Usage = Usage { bytes: 0, inodes: 1 };

    /// A file with this much data.
    pub fn file(data: u64) -> Usage {
        Usage { bytes: data.next_multiple_of(BLOCK_BYTES), inodes: 1 }
    }

    fn of(found: &Stat) -> Usage {
        match found.format() {
            libc::S_IFDIR => Usage::DIR,
            libc::S_IFREG => Usage::file(found.size.min(found.blocks * 512)),
            _ => Usage::NODE,
        }
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        self.bytes += other.bytes;
        self.inodes += other.inodes;
    }
}

impl std::ops::SubAssign for Usage {
    fn sub_assign(&mut self, other: Usage) {
        self.bytes = self.bytes.saturating_sub(other.bytes);
        self.inodes = self.inodes.saturating_sub(other.inodes);
    }
}

/// What goes when a name is removed with everything below it. A file with other names stays.
pub fn measure(parent: BorrowedFd<'_>, name: &OsStr) -> Result<Usage> {
    let Some(found) = stat::stat_at(parent, name)? else { return Ok(Usage::default()) };
    if !found.is_dir() {
        return Ok(if found.nlink > 1 { Usage::default() } else { Usage::of(&found) });
    }
    let mut total = Usage::DIR;
    let dir = open::open_dir(parent, name)?;
    for entry in list(dir.as_fd())? {
        total += measure(dir.as_fd(), &entry.name)?;
    }
    Ok(total)
}
