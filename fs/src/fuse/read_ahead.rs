//! How far the kernel reads ahead on a mount: more than it would by itself, which makes fewer requests of a large file.
//!
//! Owns the figure and the file of sysfs that takes it. Must not know how the mount came about.

use rustix::fs::{AtFlags, Statx, StatxFlags, statx};
use std::os::fd::AsFd;
use std::{fs, io};

/// With the kernel's own 128 KiB reader and server wait for each other at every request, which takes half as long again (docs/performance.md).
const KIB: u32 = 512;

/// Has the kernel read 512 KiB ahead on a mount that is live; a descriptor of it is enough, be it attached nowhere.
///
/// See `read_ahead_kb` in Documentation/ABI/testing/sysfs-class-bdi. The answer to INIT could only ask for less than the kernel offers,
/// and lowers what was said before it.
///
/// # Errors
/// Those of statx(2) and of the file in /sys, which only root of the host may write: then the kernel's own measure stays.
pub fn raise<Fd: AsFd>(mount: Fd) -> io::Result<()> {
    // Asked for nothing but its device: a mount of another user namespace answers no more, and nobody is sent to the server.
    raise_at(&statx(mount, c"", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, StatxFlags::empty())?)
}

/// The same for a mount that was looked at before.
pub(super) fn raise_at(root: &Statx) -> io::Result<()> {
    let file = format!("/sys/class/bdi/{}:{}/read_ahead_kb", root.stx_dev_major, root.stx_dev_minor);
    fs::write(file, KIB.to_string())
}
