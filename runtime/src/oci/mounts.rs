//! The mounts of config.json, in their order.
//!
//! Invariant: a mount is made whole while it is detached, then attached on a descriptor; no name of the image is resolved twice.

use super::cgroup;
use super::mount_options::{Bind, Options};
use super::mountpoints::{Note, Target, find_or_make};
use super::resolve;
use super::rootfs::{attach, clone_tree};
use super::tmpfs;
use crate::error::{Doing, Error, Result};
use crate::sys::mount::{Attributes, set_attributes};
use libc::MOUNT_ATTR_RDONLY;
use oci_spec::runtime::Mount;
use rustix::fs::{OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, fsconfig_create, fsconfig_reconfigure, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, fspick,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What mounting needs to know of the container.
#[derive(Debug)]
pub struct Ground<'a> {
    /// The root filesystem's mount.
    pub root: BorrowedFd<'a>,
    /// Relative sources lie here.
    pub bundle: &'a Path,
    /// Whether the container has a user namespace that is not the host's.
    pub user_namespace: bool,
    /// Its cgroup, which `cgroup` mounts show.
    pub cgroups: &'a cgroup::Membership,
    /// Whether it has a cgroup namespace.
    pub cgroup_namespace: bool,
    /// Where is noted what is made for mounts to stand on.
    pub note: Option<&'a Note>,
    /// `linux.mountLabel`, where the host has SELinux.
    pub label: Option<&'a str>,
}

/// What of procfs may be covered one by one: lxcfs and its like show a container's own numbers there.
const PROC_COVERED: [&str; 12] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
    "/proc/version",
];

/// Longest value that fsconfig(2) takes.
const VALUE_BYTES_MAX: usize = 255;

/// Whether the entry shows another directory.
pub fn is_bind(mount: &Mount) -> bool {
    let words = mount.options().iter().flatten();
    mount.typ().as_deref() == Some("bind") || words.into_iter().any(|word| word == "bind" || word == "rbind")
}

/// Where a bind's source lies.
pub fn source(mount: &Mount, bundle: &Path) -> Result<PathBuf> {
    match mount.source() {
        Some(source) => Ok(bundle.join(source)),
        None => Err(Error::invalid(format!("mounts: {}", mount.destination().display()), "a bind mount has no source")),
    }
}

/// Mounts all. `trees` are sources that the runtime opened for us, by position: what only it may open.
pub fn mount_all(ground: &Ground<'_>, mounts: &[Mount], trees: &mut [Option<OwnedFd>]) -> Result<()> {
    // Mounts that others stand on are made read-only last.
    let mut late = Vec::new();
    for (at, mount) in mounts.iter().enumerate() {
        let kind = mount.typ().as_deref().unwrap_or("none");
        let words = mount.options().clone().unwrap_or_default();
        let destination = resolve::lexical(mount.destination());
        let mut options = Options::parse(&words, kind, &destination.display().to_string())?;
        let tree = trees.get_mut(at).and_then(Option::take);
        if options.remount {
            remount(ground, &destination, &options)?;
            continue;
        }
        let read_only = Attributes { set: MOUNT_ATTR_RDONLY, ..Attributes::default() };
        let is_late = kind == "tmpfs" && options.attributes.set & MOUNT_ATTR_RDONLY != 0;
        if is_late {
            options.attributes.set &= !MOUNT_ATTR_RDONLY;
        }
        let fd = match (is_bind(mount), kind) {
            (true, _) => bind(ground, mount, &destination, &options, tree)?,
            (false, "cgroup") => cgroup::mount::mount(ground, &destination, &options)?,
            (false, _) => filesystem(ground, mount, kind, &destination, options.clone())?,
        };
        for change in &options.propagation {
            let attributes = Attributes { propagation: change.kind, ..Attributes::default() };
            set_attributes(fd.as_fd(), attributes, change.recursive, None)
                .doing(|| format!("change the propagation of {}", destination.display()))?;
        }
        if is_late {
            late.push((fd, read_only, destination));
        }
    }
    for (fd, read_only, destination) in late {
        set_attributes(fd.as_fd(), read_only, false, None)
            .doing(|| format!("make {} read-only", destination.display()))?;
    }
    Ok(())
}

fn bind(
    ground: &Ground<'_>,
    mount: &Mount,
    destination: &Path,
    options: &Options,
    tree: Option<OwnedFd>,
) -> Result<OwnedFd> {
    let source = source(mount, ground.bundle)?;
    let tree = tree.map_or_else(|| clone_tree(&source, options.bind == Bind::Recursive), Ok)?;
    let kind = if resolve::is_directory(&tree)? { Target::Directory } else { Target::File };
    let target = find_or_make(ground.root, destination, kind, ground.note)?;
    check_target(&target, destination, resolve::is_on(&tree, libc::PROC_SUPER_MAGIC)?)?;
    let doing = || format!("bind {} to {}", source.display(), destination.display());
    if options.copy_up && kind == Target::Directory {
        tmpfs::fill_empty(target.as_fd(), tree.as_fd())?;
    }
    change(tree.as_fd(), options.attributes, false).doing(doing)?;
    change(tree.as_fd(), options.recursive, true).doing(doing)?;
    attach(tree.as_fd(), target.as_fd()).doing(doing)?;
    Ok(tree)
}

/// Changes flags, and gives up `rw` where the mount is locked read-only: callers write `rw` when they mean nothing by it.
pub fn change(tree: BorrowedFd<'_>, attributes: Attributes, recursive: bool) -> std::io::Result<()> {
    if attributes == Attributes::default() {
        return Ok(());
    }
    match set_attributes(tree, attributes, recursive, None) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) && attributes.clear & MOUNT_ATTR_RDONLY != 0 => {
            let kept = Attributes { clear: attributes.clear & !MOUNT_ATTR_RDONLY, ..attributes };
            set_attributes(tree, kept, recursive, None)
        }
        outcome => outcome,
    }
}

fn filesystem(
    ground: &Ground<'_>,
    mount: &Mount,
    kind: &str,
    destination: &Path,
    mut options: Options,
) -> Result<OwnedFd> {
    let is_kernel = matches!(kind, "proc" | "sysfs");
    let target = if is_kernel { plain_directory(ground.root, destination)? } else { None };
    let target = target.map_or_else(|| find_or_make(ground.root, destination, Target::Directory, ground.note), Ok)?;
    check_target(&target, destination, kind == "proc")?;
    if kind == "tmpfs" && !options.data.iter().any(|(key, _)| key == "mode") {
        let mode = resolve::stat(&target)?.st_mode & 0o7777;
        options.data.push(("mode".into(), Some(format!("{mode:o}"))));
    }
    if let (Some(label), false) = (ground.label, is_kernel) {
        options.data.push(("context".into(), Some(label.to_owned())));
    }
    let doing = || format!("mount {kind} to {}", destination.display());
    let source = mount.source().as_deref();
    let tree = match make(kind, source, &options.data) {
        Err((Errno::INVAL, _)) if kind == "devpts" && ground.user_namespace => {
            // The group of terminals need not be mapped.
            let kept: Vec<_> = options.data.iter().filter(|(key, _)| key != "gid").cloned().collect();
            make(kind, source, &kept)
        }
        Err((Errno::PERM, _)) if kind == "sysfs" && ground.user_namespace => {
            // The kernel shows sysfs only to the owner of the network namespace; the host's is what others can have.
            Ok(clone_tree(Path::new("/sys"), true)?)
        }
        outcome => outcome,
    };
    let tree = match tree {
        Ok(tree) => tree,
        Err((errno, said)) if said.is_empty() => return Err(errno).doing(doing),
        Err((errno, said)) => return Err(errno).doing(|| format!("{} ({said})", doing())),
    };
    change(tree.as_fd(), options.attributes, false).doing(doing)?;
    change(tree.as_fd(), options.recursive, true).doing(doing)?;
    if options.copy_up {
        match kind {
            "tmpfs" => tmpfs::copy_tree(target.as_fd(), tree.as_fd())?,
            _ => return Err(Error::invalid(doing(), "tmpcopyup is for a tmpfs")),
        }
    }
    attach(tree.as_fd(), target.as_fd()).doing(doing)?;
    Ok(tree)
}

/// A filesystem of its own, detached; or the errno and what the kernel had to say about it.
pub fn make(
    kind: &str,
    source: Option<&Path>,
    data: &[(String, Option<String>)],
) -> std::result::Result<OwnedFd, (Errno, String)> {
    let plain = |errno| (errno, String::new());
    let filesystem = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(plain)?;
    let configure = || {
        if let Some(source) = source {
            fsconfig_set_string(&filesystem, "source", source)?;
        }
        for (key, value) in data {
            match value {
                Some(value) if value.len() > VALUE_BYTES_MAX => return Err(Errno::TOOBIG),
                Some(value) => fsconfig_set_string(&filesystem, key.as_str(), value.as_str())?,
                None => fsconfig_set_flag(&filesystem, key.as_str())?,
            }
        }
        fsconfig_create(&filesystem)?;
        fsmount(&filesystem, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    };
    configure().map_err(|errno| {
        let mut buffer = [0_u8; 256];
        let said = rustix::io::read(&filesystem, &mut buffer).map_or(0, |length| length);
        (errno, String::from_utf8_lossy(&buffer[..said]).trim_start_matches("e ").trim().to_owned())
    })
}

/// Procfs and sysfs go on a directory, not behind a link of the image: what is masked later must be what is seen (CVE-2023-27561).
fn plain_directory(root: BorrowedFd<'_>, destination: &Path) -> Result<Option<OwnedFd>> {
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat2(root, destination, flags, rustix::fs::Mode::empty(), inside) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::LOOP | Errno::NOTDIR) => Err(Error::invalid(
            format!("mounts: {}", destination.display()),
            "must be mounted on ordinary directory, but the image has a link or a file there",
        )),
        Err(errno) => Err(errno).doing(|| format!("look up {}", destination.display())),
    }
}

/// Nothing but procfs stands at /proc, and little stands on it: a false /proc would be believed by what runs inside.
fn check_target(target: &OwnedFd, destination: &Path, shows_proc: bool) -> Result<()> {
    let problem = if destination == Path::new("/proc") {
        (!shows_proc).then_some("only procfs can be mounted to /proc")
    } else if resolve::is_on(target, libc::PROC_SUPER_MAGIC)? {
        let allowed = PROC_COVERED.iter().any(|name| destination == Path::new(name));
        (!allowed && !shows_proc).then_some("cannot be mounted because it is inside /proc")
    } else {
        None
    };
    match problem {
        Some(problem) => Err(Error::invalid(format!("mounts: {}", destination.display()), problem)),
        None => Ok(()),
    }
}

fn remount(ground: &Ground<'_>, destination: &Path, options: &Options) -> Result<()> {
    let doing = || format!("remount {}", destination.display());
    let Some(target) = resolve::find(ground.root, destination)? else { return Err(Errno::NOENT).doing(doing) };
    change(target.as_fd(), options.attributes, false).doing(doing)?;
    change(target.as_fd(), options.recursive, true).doing(doing)?;
    if options.data.is_empty() {
        return Ok(());
    }
    let filesystem = fspick(&target, "", FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH).doing(doing)?;
    for (key, value) in &options.data {
        match value {
            Some(value) => fsconfig_set_string(&filesystem, key.as_str(), value.as_str()).doing(doing)?,
            None => fsconfig_set_flag(&filesystem, key.as_str()).doing(doing)?,
        }
    }
    fsconfig_reconfigure(&filesystem).doing(doing)
}
