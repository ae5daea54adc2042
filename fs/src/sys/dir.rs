//! Listing one directory.
//!
//! Invariant: `.` and `..` are left out; the order is the filesystem's.

use super::{calls, os};
use crate::error::Result;
use rustix::fs::{FileType, RawDir};
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

/// One name as getdents64(2) gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, one component.
    pub name: OsString,
    /// Inode number on the layer's filesystem.
    pub ino: u64,
    /// The type bits (`S_IFMT`); `None` where the filesystem does not say.
    pub format: Option<u32>,
}

/// Bytes that one getdents64(2) call may fill.
const DIR_BUFFER_BYTES: usize = 32 * 1024;

/// Reads the whole directory from its start. `fd` must be open for reading and be used by nobody else meanwhile.
pub fn read_dir(fd: BorrowedFd<'_>) -> Result<Vec<DirEntry>> {
    let mut buffer = vec![MaybeUninit::<u8>::uninit(); DIR_BUFFER_BYTES];
    let mut raw = RawDir::new(fd, &mut buffer);
    let mut entries = Vec::new();
    loop {
        if raw.is_buffer_empty() {
            calls::count(1);
        }
        let Some(entry) = raw.next() else { return Ok(entries) };
        let entry = entry.map_err(os("getdents"))?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let format = match entry.file_type() {
            FileType::Unknown => None,
            known => Some(known.as_raw_mode() & libc::S_IFMT),
        };
        entries.push(DirEntry { name: OsStr::from_bytes(name).to_owned(), ino: entry.ino(), format });
    }
}
