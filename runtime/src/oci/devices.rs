//! What lies in the container's /dev: the nodes that every container has, those of config.json, and the usual links.
//!
//! Invariant: the directory of a node is opened without following a link, so that an image whose /dev is one cannot have nodes
//! made elsewhere (CVE-2026-41579).

use super::mountpoints::{Target, find_or_make};
use super::resolve;
use super::rootfs::{attach, clone_tree};
use crate::error::{Doing, Error, Result};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chmodat, chownat, mknodat, openat2, symlinkat,
};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    path: PathBuf,
    kind: FileType,
    major: u32,
    minor: u32,
    mode: u32,
    uid: u32,
    gid: u32,
}

/// Source: config-linux.md, "Default Devices".
const DEFAULT: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Source: runtime-linux.md, "Dev symbolic links"; ptmx from "Default Devices".
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// Makes everything. With `bind`, nodes are the host's, for a user namespace may not make any.
pub fn make_all(root: BorrowedFd<'_>, devices: &[LinuxDevice], bind: bool) -> Result<()> {
    let mut nodes: Vec<Node> = DEFAULT.iter().map(default_node).collect();
    for device in devices {
        let node = node(device)?;
        nodes.retain(|other| other.path != node.path);
        nodes.push(node);
    }
    for node in &nodes {
        let directory = directory(root, node.path.parent().unwrap_or(Path::new("/")))?;
        make(root, &directory, node, bind)?;
    }
    let dev = directory(root, Path::new("/dev"))?;
    for (to, name) in LINKS {
        link(&dev, to, name)?;
    }
    if Path::new("/proc/kcore").exists() {
        link(&dev, "/proc/kcore", "core")?;
    }
    Ok(())
}

fn default_node((name, major, minor): &(&str, u32, u32)) -> Node {
    let (kind, path) = (FileType::CharacterDevice, Path::new("/dev").join(name));
    Node { path, kind, major: *major, minor: *minor, mode: 0o666, uid: 0, gid: 0 }
}

fn node(device: &LinuxDevice) -> Result<Node> {
    let kind = match device.typ() {
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
        LinuxDeviceType::P => FileType::Fifo,
        LinuxDeviceType::A => {
            return Err(Error::invalid(format!("linux.devices: {}", device.path().display()), "type a is for rules"));
        }
    };
    Ok(Node {
        path: resolve::lexical(device.path()),
        kind,
        major: device.major() as u32,
        minor: device.minor() as u32,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}

/// The directory of a node, made if it is missing, refused if a link leads to it.
fn directory(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    match openat2(root, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), inside) {
        Err(Errno::NOENT) => find_or_make(root, path, Target::Directory, None),
        Err(Errno::LOOP | Errno::NOTDIR) => Err(Error::invalid(
            format!("{} of the root filesystem", path.display()),
            "must be a directory for device nodes, and not a link",
        )),
        outcome => outcome.doing(|| format!("look up {}", path.display())),
    }
}

fn make(root: BorrowedFd<'_>, directory: &OwnedFd, node: &Node, bind: bool) -> Result<()> {
    let Some(name) = node.path.file_name() else { return Err(Error::invalid("linux.devices", "a path is empty")) };
    let doing = || format!("make device {}", node.path.display());
    if !bind {
        let number = rustix::fs::makedev(node.major, node.minor);
        match mknodat(directory, name, node.kind, Mode::from_raw_mode(node.mode), number) {
            // What stands there must be the same device, or the image decides what the container writes to.
            Err(Errno::EXIST) => check_same(directory, name, node)?,
            Err(Errno::PERM) => return bind_host(root, node),
            outcome => outcome.doing(doing)?,
        }
        let (uid, gid) = (Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)));
        // The mode that mknod(2) sets is cut by the umask, and an owner is not its to set.
        chmodat(directory, name, Mode::from_raw_mode(node.mode), AtFlags::empty()).doing(doing)?;
        return chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).doing(doing);
    }
    bind_host(root, node)
}

fn check_same(directory: &OwnedFd, name: &std::ffi::OsStr, node: &Node) -> Result<()> {
    let doing = || format!("look at {}", node.path.display());
    let found = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).doing(doing)?;
    let number = rustix::fs::makedev(node.major, node.minor);
    let same = FileType::from_raw_mode(found.st_mode) == node.kind;
    match same && (node.kind == FileType::Fifo || found.st_rdev == number) {
        true => Ok(()),
        false => Err(Error::invalid(
            format!("linux.devices: {}", node.path.display()),
            "another file is there already; remove it from the image, or mount a tmpfs on /dev",
        )),
    }
}

fn bind_host(root: BorrowedFd<'_>, node: &Node) -> Result<()> {
    let doing = || format!("bind device {}", node.path.display());
    let tree = clone_tree(&node.path, false)?;
    let target = find_or_make(root, &node.path, Target::File, None)?;
    attach(tree.as_fd(), target.as_fd()).doing(doing)
}

/// What an image, or a mount, has there already stays.
fn link(directory: &OwnedFd, to: &str, name: &str) -> Result<()> {
    match symlinkat(to, directory, name) {
        Ok(()) | Err(Errno::EXIST | Errno::ROFS) => Ok(()),
        Err(errno) => Err(errno).doing(|| format!("link /dev/{name} to {to}")),
    }
}
