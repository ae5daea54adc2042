//! Renaming between two directory descriptors of one filesystem.
//!
//! Invariant: each function is one renameat2(2), so it happens whole or not at all.

use super::{calls, fault, os};
use crate::error::Result;
use rustix::fs::RenameFlags;
use std::ffi::OsStr;
use std::os::fd::BorrowedFd;

/// A name below a directory descriptor.
#[derive(Clone, Copy)]
pub struct At<'a> {
    /// The directory.
    pub dir: BorrowedFd<'a>,
    /// One component.
    pub name: &'a OsStr,
}

/// Moves, replacing what is there.
pub fn replace(from: At<'_>, to: At<'_>) -> Result<()> {
    rename(from, to, RenameFlags::empty())
}

/// Moves to a name that must not exist.
pub fn no_replace(from: At<'_>, to: At<'_>) -> Result<()> {
    rename(from, to, RenameFlags::NOREPLACE)
}

/// Swaps two names.
pub fn exchange(from: At<'_>, to: At<'_>) -> Result<()> {
    rename(from, to, RenameFlags::EXCHANGE)
}

/// Moves, replacing what is there, and leaves a character device 0:0 under the old name.
pub fn leave_whiteout(from: At<'_>, to: At<'_>) -> Result<()> {
    rename(from, to, RenameFlags::WHITEOUT)
}

fn rename(from: At<'_>, to: At<'_>, flags: RenameFlags) -> Result<()> {
    fault::check("rename")?;
    calls::count(1);
    rustix::fs::renameat_with(from.dir, from.name, to.dir, to.name, flags).map_err(os("rename"))
}
