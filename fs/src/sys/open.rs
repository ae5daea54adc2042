//! Opening, creating and removing names below a directory descriptor.
//!
//! Invariant: never follows a symbolic link in the last component.

use super::rename::At;
use super::{calls, fault, os};
use crate::error::Result;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Opens a layer's root or a work directory by path; follows symbolic links. See open(2).
pub fn open_root(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    calls::count(1);
    rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(os("open"))
}

/// Opens a directory for listing; where reading it is denied, only as a place to look names up in (`O_PATH`).
pub fn open_dir(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd> {
    fault::check_open()?;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    calls::count(1);
    match rustix::fs::openat(parent, name, flags | OFlags::RDONLY, Mode::empty()) {
        Err(rustix::io::Errno::ACCESS) => {
            calls::count(1);
            rustix::fs::openat(parent, name, flags | OFlags::PATH, Mode::empty()).map_err(os("open"))
        }
        other => other.map_err(os("open")),
    }
}

/// Opens a name as a reference only (`O_PATH`): works on every kind of file and needs no permission on it.
pub fn open_path(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd> {
    fault::check_open()?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    calls::count(1);
    rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(os("open"))
}

/// What a data descriptor may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// `O_RDONLY`
    Read,
    /// `O_RDWR`
    ReadWrite,
}

/// Opens a regular file for data. Never blocks on a fifo that took its place.
pub fn open_data(parent: BorrowedFd<'_>, name: &OsStr, access: Access) -> Result<OwnedFd> {
    fault::check_open()?;
    let flags = data_flags(access) | OFlags::NOFOLLOW;
    calls::count(1);
    rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(os("open"))
}

/// Opens the file behind an `O_PATH` descriptor for data.
pub fn reopen_data(path: BorrowedFd<'_>, access: Access) -> Result<OwnedFd> {
    fault::check_open()?;
    calls::count(1);
    rustix::fs::openat(CWD, proc_path(path), data_flags(access), Mode::empty()).map_err(os("open"))
}

/// Opens the file behind an `O_PATH` descriptor as somebody would who passes the page cache by: not every filesystem lets
/// them. See open(2), `O_DIRECT`.
pub fn reopen_direct(path: BorrowedFd<'_>) -> Result<()> {
    calls::count(1);
    let flags = data_flags(Access::Read) | OFlags::DIRECT;
    rustix::fs::openat(CWD, proc_path(path), flags, Mode::empty()).map(drop).map_err(os("open"))
}

/// An empty file in memory. See memfd_create(2).
pub fn memory_file() -> Result<OwnedFd> {
    calls::count(1);
    rustix::fs::memfd_create(c"lamina-fs", rustix::fs::MemfdFlags::CLOEXEC).map_err(os("memfd_create"))
}

/// Opens the directory behind an `O_PATH` descriptor for listing.
pub fn reopen_dir(path: BorrowedFd<'_>) -> Result<OwnedFd> {
    fault::check_open()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    calls::count(1);
    rustix::fs::openat(path, ".", flags, Mode::empty()).map_err(os("open"))
}

fn data_flags(access: Access) -> OFlags {
    let mode = match access {
        Access::Read => OFlags::RDONLY,
        Access::ReadWrite => OFlags::RDWR,
    };
    mode | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY
}

/// The name under which proc(5) shows a descriptor of this process.
pub fn proc_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Creates a regular file that must not exist and opens it for reading and writing.
pub fn create_file(parent: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<OwnedFd> {
    fault::check("create")?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    calls::count(1);
    rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(mode & 0o7777)).map_err(os("open"))
}

/// See mkdirat(2).
pub fn make_dir(parent: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<()> {
    fault::check("mkdir")?;
    calls::count(1);
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(mode & 0o7777)).map_err(os("mkdir"))
}

/// See mknodat(2). `mode` carries the type.
pub fn make_node(parent: BorrowedFd<'_>, name: &OsStr, mode: u32, rdev: u64) -> Result<()> {
    fault::check("mknod")?;
    let kind = rustix::fs::FileType::from_raw_mode(mode);
    calls::count(1);
    rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(mode & 0o7777), rdev).map_err(os("mknod"))
}

/// See symlinkat(2).
pub fn symlink(target: &OsStr, parent: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    fault::check("symlink")?;
    calls::count(1);
    rustix::fs::symlinkat(target, parent, name).map_err(os("symlink"))
}

/// See readlinkat(2).
pub fn read_link(parent: BorrowedFd<'_>, name: &OsStr) -> Result<Vec<u8>> {
    calls::count(1);
    rustix::fs::readlinkat(parent, name, Vec::new()).map(|target| target.into_bytes()).map_err(os("readlink"))
}

/// Reads the target of the symbolic link that an `O_PATH` descriptor refers to.
pub fn read_link_fd(path: BorrowedFd<'_>) -> Result<Vec<u8>> {
    read_link(path, OsStr::new(""))
}

/// Gives a file a further name. See linkat(2).
pub fn link(from: At<'_>, to: At<'_>) -> Result<()> {
    fault::check("link")?;
    calls::count(1);
    rustix::fs::linkat(from.dir, from.name, to.dir, to.name, AtFlags::empty()).map_err(os("link"))
}

/// Links the file behind any descriptor under a further name. See linkat(2), `AT_SYMLINK_FOLLOW` through proc(5).
pub fn link_fd(file: BorrowedFd<'_>, parent: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    fault::check("link")?;
    calls::count(1);
    rustix::fs::linkat(CWD, proc_path(file), parent, name, AtFlags::SYMLINK_FOLLOW).map_err(os("link"))
}

/// Removes a name that is not a directory.
pub fn unlink(parent: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    fault::check("unlink")?;
    calls::count(1);
    rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(os("unlink"))
}

/// Removes an empty directory.
pub fn remove_dir(parent: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    fault::check("rmdir")?;
    calls::count(1);
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(os("rmdir"))
}

/// Whether the name exists, in whatever kind; a name too long for the filesystem does not.
pub fn exists(parent: BorrowedFd<'_>, name: &OsStr) -> Result<bool> {
    use rustix::io::Errno;
    calls::count(1);
    match rustix::fs::accessat(parent, name, rustix::fs::Access::EXISTS, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Ok(false),
        Err(errno) => Err(os("access")(errno)),
    }
}

/// A second descriptor of the same open file.
pub fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    calls::count(1);
    rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), 3).map_err(os("dup"))
}

/// A layer's root without the mounts that lie below it, as the kernel's overlayfs sees a layer: where this process may,
/// else the root as it is. See open_tree(2), `OPEN_TREE_CLONE`.
pub fn without_submounts(root: OwnedFd) -> OwnedFd {
    use rustix::mount::OpenTreeFlags;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    calls::count(1);
    // The clone is opened with O_PATH only; listing needs a descriptor for reading.
    rustix::mount::open_tree(&root, "", flags).ok().and_then(|clone| reopen_dir(clone.as_fd()).ok()).unwrap_or(root)
}
