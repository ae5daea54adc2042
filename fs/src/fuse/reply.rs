//! One way to answer each kind of request.
//!
//! Owns the last step of every operation: a result becomes a reply. Must not know the union. Invariant: every function
//! sends exactly one reply, and no panic of an operation reaches the thread that serves it.

use super::convert::{entry_attributes, negative_entry, stat_attributes};
use super::errno::errno;
use crate::error::{Error, Result};
use crate::union::Attributes;
use fuser::{
    Errno, FileHandle, FopenFlags, Generation, ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLseek, ReplyOpen, ReplyWrite, ReplyXattr,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Inode numbers are never used for a second file while the kernel holds the first, so one generation is enough.
pub(super) const GENERATION: Generation = Generation(0);

/// No handle carries state: every operation resolves from its inode.
pub(super) const NO_HANDLE: FileHandle = FileHandle(0);

/// The layers are ours alone while mounted: nothing changes behind the page cache.
pub(super) const OPENED: FopenFlags = FopenFlags::FOPEN_KEEP_CACHE;

/// Runs an operation; a panic becomes an error of its caller and a line in the log.
pub(super) fn attempt<T>(operation: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    // Unwind safety: what a panic may leave half done is guarded by the union's own locks, which do not poison.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        log::error!("{operation} panicked; its caller gets EIO and the mount goes on");
        Err(Error::Panicked)
    })
}

/// Like `attempt`, for operations that cannot fail otherwise.
pub(super) fn run<T>(operation: &'static str, work: impl FnOnce() -> T) -> Result<T> {
    attempt(operation, || Ok(work()))
}

pub(super) fn empty(reply: ReplyEmpty, result: Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

/// How long the kernel may believe these attributes.
pub(super) fn attribute_timeout(attributes: &Attributes, timeout: Duration) -> Duration {
    match attributes.unwatched {
        true => Duration::ZERO,
        false => timeout,
    }
}

pub(super) fn entry(reply: ReplyEntry, timeout: Duration, result: Result<Attributes>) {
    match result {
        Ok(found) => {
            let attributes = attribute_timeout(&found, timeout);
            reply.entry_with_ttls(&attributes, &timeout, &entry_attributes(&found), GENERATION);
        }
        Err(error) => reply.error(errno(error)),
    }
}

/// Absence is an answer that the kernel remembers as long as presence.
pub(super) fn lookup(reply: ReplyEntry, timeout: Duration, result: Result<Option<Attributes>>) {
    match result {
        Ok(None) => reply.entry(&timeout, &negative_entry(), GENERATION),
        Ok(Some(attributes)) => entry(reply, timeout, Ok(attributes)),
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn attributes(reply: ReplyAttr, timeout: Duration, result: Result<Attributes>) {
    match result {
        Ok(found) => reply.attr(&attribute_timeout(&found, timeout), &stat_attributes(&found)),
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn created(reply: ReplyCreate, timeout: Duration, result: Result<Attributes>) {
    match result {
        Ok(attributes) => {
            reply.created(&timeout, &entry_attributes(&attributes), GENERATION, NO_HANDLE, OPENED);
        }
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn opened(reply: ReplyOpen, result: Result<()>) {
    match result {
        Ok(()) => reply.opened(NO_HANDLE, OPENED),
        Err(error) => reply.error(errno(error)),
    }
}

/// A listing that the kernel has stays good until a name of the directory changes, which it sees itself at the start of each
/// reading. In the middle of one it does not: a second descriptor would be led over to what the first had begun to collect
/// before a change, and skip names. So only a descriptor that has the directory to itself reads and fills the kernel's listing.
pub(super) fn opened_dir(reply: ReplyOpen, handle: u64, alone: Result<bool>) {
    match alone {
        Ok(true) => reply.opened(FileHandle(handle), FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE),
        Ok(false) => reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE),
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn data(reply: ReplyData, result: Result<Vec<u8>>) {
    match result {
        Ok(data) => reply.data(&data),
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn written(reply: ReplyWrite, result: Result<usize>) {
    match result {
        // A request is at most `TRANSFER_MAX` bytes long, or a copy of at most `COPY_RANGE_MAX`: both fit.
        Ok(size) => reply.written(size as u32),
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn offset(reply: ReplyLseek, result: Result<i64>) {
    match result {
        Ok(offset) => reply.offset(offset),
        Err(error) => reply.error(errno(error)),
    }
}

/// An attribute or a list of names: a caller that brings no buffer asks for the size. See getxattr(2).
pub(super) fn xattr(reply: ReplyXattr, size: u32, result: Result<Vec<u8>>) {
    match result {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(errno(error)),
    }
}

/// The answer to an ioctl whose caller has room for `out_size` bytes.
pub(super) fn ioctl(reply: ReplyIoctl, out_size: u32, result: Result<Vec<u8>>) {
    match result {
        Ok(value) => reply.ioctl(0, &value[..value.len().min(out_size as usize)]),
        Err(error) => reply.error(errno(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_of_an_operation_becomes_an_error() {
        assert_eq!(attempt::<()>("test", || panic!("on purpose")), Err(Error::Panicked));
    }
}
