//! Showing a container its cgroups: mounts of type `cgroup`.
//!
//! Invariant: the container sees its own directories as roots, by a cgroup namespace or by binding just them.

use super::Directory;
use crate::error::{Doing, Result};
use crate::oci::mount_options::Options;
use crate::oci::mountpoints::{Target, find_or_make};
use crate::oci::mounts::{Ground, change, make};
use crate::oci::rootfs::{attach, clone_tree};
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, move_mount};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Mounts the hierarchies of the container: version 2 by itself, version 1 as a directory of hierarchies.
pub fn mount(ground: &Ground<'_>, destination: &Path, options: &Options) -> Result<OwnedFd> {
    let doing = || format!("mount the cgroups to {}", destination.display());
    let target = find_or_make(ground.root, destination, Target::Directory, ground.note)?;
    let directories = &ground.cgroups.0;
    let tree = match directories.as_slice() {
        [only] if only.unified => hierarchy(only, ground)?,
        [] => unified_or_host(ground).doing(doing)?,
        many => {
            let data = [("mode".to_owned(), Some("755".to_owned()))];
            let tree = make("tmpfs", Some(Path::new("tmpfs")), &data).map_err(|(errno, _)| errno).doing(doing)?;
            attach(tree.as_fd(), target.as_fd()).doing(doing)?;
            fill(ground, &tree, many, options)?;
            change(tree.as_fd(), options.attributes, false).doing(doing)?;
            return Ok(tree);
        }
    };
    change(tree.as_fd(), options.attributes, false).doing(doing)?;
    change(tree.as_fd(), options.recursive, true).doing(doing)?;
    attach(tree.as_fd(), target.as_fd()).doing(doing)?;
    Ok(tree)
}

/// A container without a cgroup of its own sees what the caller sees.
fn unified_or_host(ground: &Ground<'_>) -> std::io::Result<OwnedFd> {
    if ground.cgroup_namespace
        && let Ok(tree) = make("cgroup2", Some(Path::new("cgroup")), &[])
    {
        return Ok(tree);
    }
    clone_tree(Path::new("/sys/fs/cgroup"), true).map_err(|error| match error {
        crate::error::Error::Os { source, .. } => source,
        other => std::io::Error::other(other.to_string()),
    })
}

fn hierarchy(directory: &Directory, ground: &Ground<'_>) -> Result<OwnedFd> {
    if ground.cgroup_namespace {
        let made = if directory.unified {
            make("cgroup2", Some(Path::new("cgroup")), &[])
        } else {
            let option = |name: &String| match name.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (name.clone(), None),
            };
            // A named hierarchy has no controller, and the kernel wants that said.
            let named = directory.controllers.iter().any(|name| name.starts_with("name="));
            let none = named.then(|| ("none".to_owned(), None));
            let data: Vec<_> = directory.controllers.iter().map(option).chain(none).collect();
            make("cgroup", Some(Path::new("cgroup")), &data)
        };
        match made {
            Ok(tree) => return Ok(tree),
            // A user namespace that does not own it, or one mounted otherwise: its directory is shown instead.
            Err((Errno::PERM | Errno::BUSY | Errno::INVAL, _)) => {}
            Err((errno, _)) => return Err(errno).doing(|| format!("mount cgroup {}", directory.controllers.join(","))),
        }
    }
    clone_tree(&directory.path, true)
}

fn fill(ground: &Ground<'_>, tree: &OwnedFd, directories: &[Directory], options: &Options) -> Result<()> {
    for directory in directories {
        let name = match directory.unified {
            true => "unified".to_owned(),
            false => directory.controllers.join(",").trim_start_matches("name=").to_owned(),
        };
        let doing = || format!("mount cgroup {name}");
        mkdirat(tree, name.as_str(), Mode::from_raw_mode(0o755)).doing(doing)?;
        let below = openat(
            tree,
            name.as_str(),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let mounted = hierarchy(directory, ground)?;
        change(mounted.as_fd(), options.attributes, false).doing(doing)?;
        let both = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&mounted, "", below.doing(doing)?, "", both).doing(doing)?;
        for single in directory.controllers.iter().filter(|single| **single != name && !single.contains('=')) {
            if rustix::fs::statat(tree, single.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_err() {
                symlinkat(name.as_str(), tree, single.as_str()).doing(doing)?;
            }
        }
    }
    Ok(())
}
