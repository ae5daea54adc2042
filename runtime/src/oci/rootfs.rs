//! The container's root: becoming a mount, being hardened, taking the place of the host's.
//!
//! Invariant: the host's tree is never changed: its mounts are made slaves or private before the first mount of ours.

use super::resolve;
use crate::error::{Doing, Error, Result};
use crate::sys::mount::{Attributes, set_attributes};
use libc::{MOUNT_ATTR_RDONLY, MS_PRIVATE, MS_SHARED, MS_SLAVE, MS_UNBINDABLE};
use rustix::fs::{CWD, FileType, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Linux's number of /dev/null: memory devices, the third.
const NULL_DEVICE: (u32, u32) = (1, 3);

/// Propagation of the whole tree as `linux.rootfsPropagation` spells it.
fn propagation(word: &str) -> Result<Option<(u64, bool)>> {
    let (name, recursive) = match word.strip_prefix('r') {
        Some(name) => (name, true),
        None => (word, false),
    };
    match name {
        "" => Ok(None),
        "shared" => Ok(Some((MS_SHARED, recursive))),
        "slave" => Ok(Some((MS_SLAVE, recursive))),
        "private" => Ok(Some((MS_PRIVATE, recursive))),
        "unbindable" => Ok(Some((MS_UNBINDABLE, recursive))),
        _ => Err(Error::invalid(
            "linux.rootfsPropagation",
            format!("{word:?} is none of shared, slave, private, unbindable"),
        )),
    }
}

/// A copy of what is mounted at `path`, not attached anywhere yet.
pub fn clone_tree(path: &Path, recursive: bool) -> Result<OwnedFd> {
    let depth = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | depth;
    open_tree(CWD, path, flags).doing(|| format!("bind {}", path.display()))
}

/// A copy of what an open file lies on, with the file as its root.
pub fn clone_file(fd: BorrowedFd<'_>, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let depth = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(fd, "", flags | depth)
}

/// Attaches a detached mount on an open file or directory.
pub fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let both = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", target, "", both)
}

/// Makes the root filesystem a mount of its own. Its descriptor is the root that all names are resolved below.
pub fn prepare(rootfs: &Path, tree: Option<OwnedFd>, wanted: &str) -> Result<OwnedFd> {
    let wanted = propagation(wanted)?;
    let host = openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).doing(|| "open /".into())?;
    let (kind, recursive) = wanted.unwrap_or((MS_SLAVE, true));
    // An unbindable tree could not be bound, so that word is for the root alone, in `enter`.
    let (kind, recursive) =
        if kind == MS_UNBINDABLE { (MS_PRIVATE, true) } else { (kind, recursive || kind != MS_SHARED) };
    let change = Attributes { propagation: kind, ..Attributes::default() };
    set_attributes(host.as_fd(), change, recursive, None).doing(|| "change the propagation of /".into())?;
    if kind == MS_SHARED {
        // A mount of ours on a shared one would show on the host, and pivot_root(2) refuses it.
        let parent = mount_above(rootfs)?;
        let private = Attributes { propagation: MS_PRIVATE, ..Attributes::default() };
        let fd = openat(CWD, &parent, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let fd = fd.doing(|| format!("open {}", parent.display()))?;
        set_attributes(fd.as_fd(), private, false, None).doing(|| format!("make {} private", parent.display()))?;
    }
    let tree = tree.map_or_else(|| clone_tree(rootfs, true), Ok)?;
    move_mount(&tree, "", CWD, rootfs, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .doing(|| format!("mount the root filesystem {}", rootfs.display()))?;
    Ok(tree)
}

/// The mount point that `path` lies on. Source: proc_pid_mountinfo(5), field 5.
fn mount_above(path: &Path) -> Result<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").doing(|| "read /proc/self/mountinfo".into())?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let above = points.filter(|point| path.starts_with(point));
    Ok(above.max_by_key(|point| point.components().count()).unwrap_or_else(|| "/".into()))
}

/// Undoes the octal escapes (`\040`) of mountinfo.
pub fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let bytes = text.as_bytes();
    let (mut plain, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if bytes[at] == b'\\' => {
                plain.push(byte);
                at += 4;
            }
            _ => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    OsString::from_vec(plain).into()
}

/// The host's /dev/null, and proof that it is one: masking with another file would show that file instead (CVE-2025-31133).
fn host_null() -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let null = openat(CWD, "/dev/null", flags, Mode::empty()).doing(|| "open /dev/null".into())?;
    let stat = resolve::stat(&null)?;
    let number = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    match FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && number == NULL_DEVICE {
        true => Ok(null),
        false => Err(Error::invalid("/dev/null", "is not the null device (1:3) on this host")),
    }
}

/// Hides files behind /dev/null and directories behind an empty, read-only one.
pub fn mask(root: BorrowedFd<'_>, paths: &[String]) -> Result<()> {
    let (mut null, mut empty): (Option<OwnedFd>, Option<OwnedFd>) = (None, None);
    for path in paths {
        let Some(target) = resolve::find(root, Path::new(path))? else { continue };
        let doing = || format!("mask {path}");
        let cover = if resolve::is_directory(&target)? {
            if empty.is_none() {
                empty = Some(empty_directory().doing(doing)?);
            }
            empty.as_ref()
        } else {
            if null.is_none() {
                null = Some(host_null()?);
            }
            null.as_ref()
        };
        let Some(cover) = cover else { continue };
        let tree = clone_file(cover.as_fd(), false).doing(doing)?;
        attach(tree.as_fd(), target.as_fd()).doing(doing)?;
        // Only a mount that is attached can be copied from, so the first copy of the empty directory serves the others.
        if resolve::is_directory(&tree)? {
            empty = Some(tree);
        }
    }
    Ok(())
}

fn empty_directory() -> rustix::io::Result<OwnedFd> {
    let filesystem = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&filesystem, "size", "0k")?;
    fsconfig_set_string(&filesystem, "nr_inodes", "2")?;
    fsconfig_create(&filesystem)?;
    fsmount(&filesystem, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// Mounts each path over itself, read-only.
pub fn protect(root: BorrowedFd<'_>, paths: &[String]) -> Result<()> {
    let read_only = Attributes { set: MOUNT_ATTR_RDONLY, ..Attributes::default() };
    for path in paths {
        let Some(target) = resolve::find(root, Path::new(path))? else { continue };
        let doing = || format!("make {path} read-only");
        let tree = clone_file(target.as_fd(), true).doing(doing)?;
        set_attributes(tree.as_fd(), read_only, true, None).doing(doing)?;
        attach(tree.as_fd(), target.as_fd()).doing(doing)?;
    }
    Ok(())
}

/// How the new root takes the place of the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// pivot_root(2): the old root is gone afterwards.
    Pivot,
    /// Moving the mount to / and chroot(2), for a host whose root is a ramfs.
    Move,
}

/// Takes the root's place as `/` and makes it the working directory.
pub fn enter(root: BorrowedFd<'_>, entry: Entry, read_only: bool, wanted: &str) -> Result<()> {
    rustix::process::fchdir(root).doing(|| "enter the root filesystem".into())?;
    match entry {
        Entry::Pivot => pivot()?,
        Entry::Move => {
            let moved = rustix::mount::mount_move(".", "/");
            moved.doing(|| "move the root filesystem to /".into())?;
            rustix::process::chroot(".").doing(|| "change the root directory".into())?;
        }
    }
    rustix::process::chdir("/").doing(|| "enter /".into())?;
    if let Some((kind, recursive)) = propagation(wanted)? {
        let change = Attributes { propagation: kind, ..Attributes::default() };
        set_attributes(root, change, recursive, None).doing(|| format!("make the root filesystem {wanted}"))?;
    }
    if read_only {
        let change = Attributes { set: MOUNT_ATTR_RDONLY, ..Attributes::default() };
        set_attributes(root, change, false, None).doing(|| "make the root filesystem read-only".into())?;
    }
    Ok(())
}

fn pivot() -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old = openat(CWD, "/", flags, Mode::empty()).doing(|| "open the host's root".into())?;
    match rustix::process::pivot_root(".", ".") {
        Err(Errno::INVAL) => {
            Err(Errno::INVAL).doing(|| "pivot_root: the host's root may be a ramfs, then --no-pivot helps".into())
        }
        outcome => outcome.doing(|| "pivot_root".into()),
    }?;
    // Both roots lie on `/` now, the old one on top.
    rustix::process::fchdir(&old).doing(|| "enter the host's root".into())?;
    let slave = Attributes { propagation: MS_SLAVE, ..Attributes::default() };
    set_attributes(old.as_fd(), slave, true, None).doing(|| "detach the host's root".into())?;
    unmount(".", UnmountFlags::DETACH).doing(|| "detach the host's root".into())
}
