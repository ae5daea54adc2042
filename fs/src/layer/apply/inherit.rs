//! Directories that a changeset only implies take the attributes that the layers below show for them.
//!
//! A step of its own, so that the layers of an image can be written at the same time. Invariant: changes nothing but the
//! directories that `apply` named.

use super::dress::Dresser;
use super::error::ApplyError;
use super::path::Components;
use crate::error::Result;
use crate::layer::archive::Attributes;
use crate::layer::lower::{DirMarks, Entry, Layer, LayerId};
use crate::layer::override_stat::{OverrideStat, is_override_xattr, show_security};
use crate::layer::whiteout::is_private_xattr;
use crate::sys::stat::Stat;
use crate::sys::{open, xattr};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Gives the directories `implicit` of the layer in `root` the attributes that they have in `parents`, topmost first; those
/// that no parent shows keep theirs.
///
/// # Errors
/// A sentence that names the directory.
pub fn inherit(
    root: BorrowedFd<'_>,
    implicit: &[Vec<u8>],
    parents: &[BorrowedFd<'_>],
    owners: OverrideStat,
) -> Result<(), ApplyError> {
    if implicit.is_empty() || parents.is_empty() {
        return Ok(());
    }
    let layers = (1..).zip(parents).map(|(id, fd)| Layer::new(LayerId(id), open::duplicate(*fd)?, false));
    let layers = layers.collect::<Result<Vec<_>>>()?;
    let mut dresser = Dresser::new(root, owners)?;
    for path in implicit {
        let mut one = || {
            let components = Components::parse(path)?;
            let Some(attributes) = shown(&layers, &components)? else { return Ok(()) };
            let dir = walk(root, &components)?;
            dresser.open(dir.as_fd(), (libc::S_IFDIR, 0), &attributes, None)
        };
        one().map_err(|cause: ApplyError| cause.at(path))?;
    }
    Ok(())
}

fn walk(root: BorrowedFd<'_>, components: &[&OsStr]) -> Result<OwnedFd> {
    let start = open::reopen_dir(root)?;
    components.iter().try_fold(start, |dir, name| open::open_dir(dir.as_fd(), name))
}

/// What one layer says of a path.
enum Said {
    Dir(OwnedFd, Stat),
    /// Nothing, and the layers below may say more.
    Absent,
    /// Nothing of the layers below shows either.
    Hidden,
}

/// The attributes of a directory that the layers show together: those of the topmost that has it.
fn shown(layers: &[Layer], components: &[&OsStr]) -> Result<Option<Attributes>> {
    for layer in layers {
        match ask(layer, components)? {
            Said::Dir(dir, stat) => return attributes(dir.as_fd(), &stat).map(Some),
            Said::Absent => {}
            Said::Hidden => return Ok(None),
        }
    }
    Ok(None)
}

fn ask(layer: &Layer, components: &[&OsStr]) -> Result<Said> {
    let mut dir = open::reopen_dir(layer.root())?;
    let mut stat = layer.stat_fd(dir.as_fd())?;
    let mut marks: DirMarks = layer.dir_marks(dir.as_fd())?;
    let mut opaque = false;
    for name in components {
        match layer.entry(dir.as_fd(), marks, name)? {
            Entry::Dir { stat: found, marks: next } => {
                dir = open::open_dir(dir.as_fd(), name)?;
                (stat, marks) = (found, next);
                opaque |= next.opaque;
            }
            Entry::Absent if !opaque => return Ok(Said::Absent),
            _ => return Ok(Said::Hidden),
        }
    }
    Ok(Said::Dir(dir, stat))
}

fn attributes(dir: BorrowedFd<'_>, stat: &Stat) -> Result<Attributes> {
    let mut xattrs = Vec::new();
    for name in xattr::names(dir)?.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = OsStr::from_bytes(name);
        if is_private_xattr(name) || is_override_xattr(name) {
            continue;
        }
        if let Some(value) = xattr::value(dir, name)? {
            let shown = show_security(name);
            xattrs.push((shown.as_deref().unwrap_or(name).as_bytes().to_vec(), value));
        }
    }
    let Stat { uid, gid, mode, mtime, atime, .. } = *stat;
    Ok(Attributes { mode: mode & 0o7777, uid, gid, mtime, atime: Some(atime), xattrs })
}
