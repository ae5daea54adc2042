//! Moving data: between two files, and between a file and memory.
//!
//! Invariant: a short transfer is reported as such, never as success.

use super::{calls, fault, os};
use crate::error::{Error, Result};
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;
use std::os::fd::BorrowedFd;

/// Bytes that one copy_file_range(2) or one read and write move.
const COPY_STEP_BYTES: u64 = 4 << 20;
/// Bytes of the buffer of the last fallback.
const COPY_BUFFER_BYTES: usize = 1 << 20;

/// A file up to this size is read whole and written whole, unless it may have holes: fewer calls than asking for them.
const SMALL_BYTES_MAX: u64 = 64 << 10;
/// The smallest block of a filesystem (XFS): what holds no such run of zeros at its place has no hole.
const HOLE_BYTES_MIN: usize = 512;

/// Whether the bytes were shared or moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Copied {
    /// The two files share their extents (`FICLONE`), or there was nothing to copy: nothing was read or written.
    Shared,
    /// Bytes were written; they may still be in memory only.
    Written,
}

/// Makes `to`, an empty file, share all extents of `from`. `None` where the two filesystems never will.
pub fn share_data(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Option<bool> {
    calls::count(1);
    match rustix::fs::ioctl_ficlone(to, from) {
        Ok(()) => Some(true),
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS | Errno::XDEV) => None,
        // This file not: it is swapped to, or lies in the inode.
        Err(_) => Some(false),
    }
}

/// Makes `to`, an empty file, hold the first `length` bytes of `from`; holes stay holes.
pub fn copy_data(from: BorrowedFd<'_>, to: BorrowedFd<'_>, length: u64) -> Result<()> {
    fault::check("copy")?;
    if length <= SMALL_BYTES_MAX && copy_small(from, to, length as usize)? {
        return Ok(());
    }
    let (mut position, mut filled) = (0, 0);
    while position < length {
        let Some((start, end)) = data_segment(from, position, length)? else { break };
        copy_segment(from, to, start, end)?;
        (position, filled) = (end, end);
    }
    match filled == length {
        true => Ok(()),
        // A hole at the end.
        false => truncate(to, length),
    }
}

/// Copies a small file that has no holes; whether it was one.
fn copy_small(from: BorrowedFd<'_>, to: BorrowedFd<'_>, length: usize) -> Result<bool> {
    let mut buffer = vec![0; length];
    let whole = read_at(from, 0, &mut buffer)? == length;
    if !whole || buffer.chunks(HOLE_BYTES_MIN).any(|block| block.iter().all(|byte| *byte == 0)) {
        return Ok(false);
    }
    write_all_at(to, 0, &buffer)?;
    Ok(true)
}

/// The next stretch of data at or after `position`, cut at `length`; `None` where only a hole follows.
fn data_segment(from: BorrowedFd<'_>, position: u64, length: u64) -> Result<Option<(u64, u64)>> {
    calls::count(1);
    let start = match rustix::fs::seek(from, SeekFrom::Data(position)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // A filesystem without SEEK_DATA: all of it is data.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((position, length))),
        Err(errno) => return Err(os("lseek")(errno)),
    };
    if start >= length {
        return Ok(None);
    }
    calls::count(1);
    let end = rustix::fs::seek(from, SeekFrom::Hole(start)).map_err(os("lseek"))?;
    Ok(Some((start, end.min(length))))
}

fn copy_segment(from: BorrowedFd<'_>, to: BorrowedFd<'_>, start: u64, end: u64) -> Result<()> {
    let mut at = start;
    while at < end {
        let (mut input, mut output) = (at, at);
        let step = (end - at).min(COPY_STEP_BYTES);
        calls::count(1);
        match rustix::fs::copy_file_range(from, Some(&mut input), to, Some(&mut output), step as usize) {
            // The file ends before its size says (it shrank below us): the rest reads as zeros.
            Ok(0) => return copy_by_buffer(from, to, at, end),
            Ok(moved) => at += moved as u64,
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::BADF) => {
                return copy_by_buffer(from, to, at, end);
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(os("copy_file_range")(errno)),
        }
    }
    Ok(())
}

fn copy_by_buffer(from: BorrowedFd<'_>, to: BorrowedFd<'_>, start: u64, end: u64) -> Result<()> {
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    let mut at = start;
    while at < end {
        let want = (end - at).min(buffer.len() as u64) as usize;
        let got = read_at(from, at, &mut buffer[..want])?;
        if got == 0 {
            return Err(Error::Os { call: "read", errno: libc::EIO });
        }
        write_all_at(to, at, &buffer[..got])?;
        at += got as u64;
    }
    Ok(())
}

/// Reads until the buffer is full or the file ends; returns the bytes read. See pread(2).
pub fn read_at(fd: BorrowedFd<'_>, offset: u64, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        calls::count(1);
        match rustix::io::pread(fd, &mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(os("pread")(errno)),
        }
    }
    Ok(filled)
}

/// Writes as much as the file takes: an error after some bytes is reported as those bytes. See pwrite(2).
pub fn write_at(fd: BorrowedFd<'_>, offset: u64, data: &[u8]) -> Result<usize> {
    fault::check("pwrite")?;
    let mut written = 0;
    while written < data.len() {
        calls::count(1);
        match rustix::io::pwrite(fd, &data[written..], offset + written as u64) {
            Ok(0) => break,
            Ok(got) => written += got,
            Err(Errno::INTR) => {}
            Err(errno) if written == 0 => return Err(os("pwrite")(errno)),
            Err(_) => break,
        }
    }
    Ok(written)
}

/// Writes all of it, or fails. See pwrite(2).
pub fn write_all_at(fd: BorrowedFd<'_>, offset: u64, data: &[u8]) -> Result<()> {
    let mut written = 0;
    while written < data.len() {
        match write_at(fd, offset + written as u64, &data[written..])? {
            0 => return Err(Error::Os { call: "pwrite", errno: libc::ENOSPC }),
            got => written += got,
        }
    }
    Ok(())
}

/// Sets the length. See ftruncate(2).
pub fn truncate(fd: BorrowedFd<'_>, length: u64) -> Result<()> {
    fault::check("truncate")?;
    calls::count(1);
    rustix::fs::ftruncate(fd, length).map_err(os("ftruncate"))
}

/// Reserves, punches or zeroes a range. See fallocate(2).
pub fn allocate(fd: BorrowedFd<'_>, mode: i32, offset: u64, length: u64) -> Result<()> {
    fault::check("fallocate")?;
    let flags = FallocateFlags::from_bits_retain(mode as u32);
    calls::count(1);
    rustix::fs::fallocate(fd, flags, offset, length).map_err(os("fallocate"))
}

/// Finds data or a hole at or after `offset`. See lseek(2), `SEEK_DATA` and `SEEK_HOLE`.
pub fn seek(fd: BorrowedFd<'_>, offset: u64, data: bool) -> Result<u64> {
    let to = if data { SeekFrom::Data(offset) } else { SeekFrom::Hole(offset) };
    calls::count(1);
    rustix::fs::seek(fd, to).map_err(os("lseek"))
}

/// Copies inside the kernel, as far as it gets; returns the bytes copied. See copy_file_range(2).
pub fn copy_range(
    from: BorrowedFd<'_>,
    from_offset: u64,
    to: BorrowedFd<'_>,
    to_offset: u64,
    length: usize,
) -> Result<usize> {
    fault::check("copy_file_range")?;
    let (mut input, mut output) = (from_offset, to_offset);
    calls::count(1);
    rustix::fs::copy_file_range(from, Some(&mut input), to, Some(&mut output), length).map_err(os("copy_file_range"))
}
