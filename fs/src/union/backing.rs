//! Inode to its current backing to a descriptor of it.
//!
//! Owns how a file of a layer is reached without an absolute path. Invariant: a descriptor of the upper layer is checked to
//! be of the file that the inode stands for, because its name may have moved on meanwhile.

use super::Union;
use super::descriptors::Use;
use super::inode::{Below, Inode, Place, UpperFile};
use crate::error::{Error, Result};
use crate::layer::{Layer, LayerId};
use crate::sys::open::Access;
use crate::sys::stat::Stat;
use crate::sys::{open, stat};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// How often a name that moved on is looked up anew.
const MOVED_TRIES_MAX: usize = 16;

/// A descriptor, shared with the table or borrowed from a layer.
pub enum Handle<'a> {
    /// A layer's root.
    Root(BorrowedFd<'a>),
    /// Anything else.
    Open(Arc<OwnedFd>),
}

impl AsFd for Handle<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Handle::Root(fd) => *fd,
            Handle::Open(fd) => fd.as_fd(),
        }
    }
}

/// Where an inode's file is now.
enum Backing {
    Upper { file: UpperFile, place: Option<Arc<Place>>, pin: Option<Arc<OwnedFd>>, held: Option<Arc<OwnedFd>> },
    Lower(LayerId),
}

impl Union {
    fn backing(&self, inode: &Inode) -> Backing {
        let state = inode.state.read();
        match (state.upper, &inode.below) {
            (Some(file), _) => {
                Backing::Upper { file, place: state.place.clone(), pin: state.pin.clone(), held: state.held.clone() }
            }
            (None, Below::Leaf { identity, .. }) => Backing::Lower(identity.layer),
            (None, Below::Dir(parts)) => Backing::Lower(parts[0].layer),
            // Unreachable by construction: an inode with nothing below is made in the upper layer.
            (None, Below::Nothing) => Backing::Lower(LayerId::UPPER),
        }
    }

    /// The layer that an inode shows the attributes of.
    pub(super) fn layer_of(&self, inode: &Inode) -> Result<&Layer> {
        match self.backing(inode) {
            Backing::Upper { .. } => self.stack.layer(LayerId::UPPER),
            Backing::Lower(layer) => self.stack.layer(layer),
        }
    }

    /// One layer's part of a directory. Never for listing: the descriptor's position is shared.
    pub(super) fn dir_fd(&self, dir: &Arc<Inode>, layer: LayerId) -> Result<Handle<'_>> {
        if dir.home.is_none() && dir.number == super::InodeNumber::ROOT {
            return Ok(Handle::Root(self.stack.layer(layer)?.root()));
        }
        let purpose = Use::Dir(layer);
        if let Some(fd) = self.descriptors.get(dir.number, purpose) {
            return Ok(Handle::Open(fd));
        }
        if layer != LayerId::UPPER {
            let home = dir.home.as_ref().ok_or(Error::NoSuchInode)?;
            let parent = self.dir_fd(&home.parent, layer)?;
            let fd = self.with_room(|| open::open_dir(parent.as_fd(), &home.name))?;
            return Ok(Handle::Open(self.descriptors.insert(dir.number, purpose, fd)));
        }
        if let Backing::Upper { pin: Some(pin), .. } = self.backing(dir) {
            return Ok(Handle::Open(pin));
        }
        match self.open_upper(dir, open::open_dir) {
            Ok(fd) => Ok(Handle::Open(self.descriptors.insert(dir.number, purpose, fd))),
            Err(_) if dir.state.read().pin.is_some() => self.dir_fd(dir, layer),
            Err(error) => Err(error),
        }
    }

    /// The upper layer's part of a directory.
    pub(super) fn upper_dir(&self, dir: &Arc<Inode>) -> Result<Handle<'_>> {
        self.dir_fd(dir, LayerId::UPPER)
    }

    /// A reference to an inode's current file: for attributes, links and reading targets.
    pub(super) fn path_fd(&self, inode: &Arc<Inode>) -> Result<Handle<'_>> {
        match self.backing(inode) {
            Backing::Upper { .. } if inode.is_dir() => self.upper_dir(inode),
            Backing::Lower(layer) if inode.is_dir() => self.dir_fd(inode, layer),
            Backing::Upper { pin: Some(fd), .. } | Backing::Upper { held: Some(fd), .. } => Ok(Handle::Open(fd)),
            Backing::Upper { .. } => {
                for purpose in [Use::Path { upper: true }, Use::Write, Use::Read { upper: true }] {
                    if let Some(fd) = self.descriptors.get(inode.number, purpose) {
                        return Ok(Handle::Open(fd));
                    }
                }
                match self.open_upper(inode, open::open_path) {
                    Ok(fd) => Ok(Handle::Open(self.descriptors.insert(inode.number, Use::Path { upper: true }, fd))),
                    // Removed since: a reference was pinned before its name went.
                    Err(_) if inode.state.read().pin.is_some() => self.path_fd(inode),
                    Err(error) => Err(error),
                }
            }
            Backing::Lower(layer) => {
                let purpose = Use::Path { upper: false };
                if let Some(fd) = self.descriptors.get(inode.number, purpose) {
                    return Ok(Handle::Open(fd));
                }
                let fd = self.open_lower(inode, layer, open::open_path)?;
                Ok(Handle::Open(self.descriptors.insert(inode.number, purpose, fd)))
            }
        }
    }

    /// A data descriptor of a regular file's current backing. Writing needs the file in the upper layer.
    pub(super) fn data_fd(&self, inode: &Arc<Inode>, access: Access) -> Result<Handle<'_>> {
        match self.backing(inode) {
            Backing::Lower(_) if access == Access::ReadWrite => Err(Error::ReadOnly),
            Backing::Lower(layer) => {
                let purpose = Use::Read { upper: false };
                if let Some(fd) = self.descriptors.get(inode.number, purpose) {
                    return Ok(Handle::Open(fd));
                }
                let fd = self.open_lower(inode, layer, |parent, name| open::open_data(parent, name, access))?;
                Ok(Handle::Open(self.descriptors.insert(inode.number, purpose, fd)))
            }
            Backing::Upper { held: Some(fd), .. } => Ok(Handle::Open(fd)),
            Backing::Upper { pin, .. } => {
                let reading = Use::Read { upper: true };
                let kept = self.descriptors.get(inode.number, Use::Write);
                let kept = kept.or_else(|| match access {
                    Access::Read => self.descriptors.get(inode.number, reading),
                    Access::ReadWrite => None,
                });
                if let Some(fd) = kept {
                    return Ok(Handle::Open(fd));
                }
                let fd = match pin {
                    Some(pin) => self.with_room(|| open::reopen_data(pin.as_fd(), access))?,
                    None => match self.open_upper(inode, |parent, name| open::open_data(parent, name, access)) {
                        Ok(fd) => fd,
                        Err(_) if inode.state.read().pin.is_some() => return self.data_fd(inode, access),
                        Err(error) => return Err(error),
                    },
                };
                let purpose = if access == Access::Read { reading } else { Use::Write };
                Ok(Handle::Open(self.descriptors.insert(inode.number, purpose, fd)))
            }
        }
    }

    /// Attributes of an inode's current backing, as its layer shows them.
    pub(super) fn backing_stat(&self, inode: &Arc<Inode>) -> Result<Stat> {
        if let Some(stat) = self.index_stat(inode) {
            return stat;
        }
        let layer = self.layer_of(inode)?;
        if !inode.is_dir()
            && !layer.is_overridden()
            && let Backing::Upper { file, place: Some(place), pin: None, held: None } = self.backing(inode)
            && let Ok(parent) = self.upper_dir(&place.parent)
            && let Ok(Some(found)) = stat::stat_at(parent.as_fd(), &place.name)
            && (found.dev, found.ino) == (file.dev, file.ino)
        {
            return Ok(found);
        }
        let fd = self.path_fd(inode)?;
        layer.stat_fd(fd.as_fd())
    }

    /// Where a lower layer has the file that an inode shows, other than a directory: the directory there, and the name.
    pub(super) fn lower_name<'a>(&'a self, inode: &'a Inode) -> Result<Option<(Handle<'a>, &'a OsStr)>> {
        match (self.backing(inode), &inode.home, inode.is_dir()) {
            (Backing::Lower(layer), Some(home), false) => Ok(Some((self.dir_fd(&home.parent, layer)?, &home.name))),
            _ => Ok(None),
        }
    }

    fn open_lower(
        &self,
        inode: &Inode,
        layer: LayerId,
        how: impl Fn(BorrowedFd<'_>, &OsStr) -> Result<OwnedFd>,
    ) -> Result<OwnedFd> {
        let home = inode.home.as_ref().ok_or(Error::NoSuchInode)?;
        let parent = self.dir_fd(&home.parent, layer)?;
        self.with_room(|| how(parent.as_fd(), &home.name))
    }

    /// Opens an inode's name in the upper layer, and makes sure that it still is the inode's.
    fn open_upper(&self, inode: &Inode, how: impl Fn(BorrowedFd<'_>, &OsStr) -> Result<OwnedFd>) -> Result<OwnedFd> {
        let mut last = Error::NoSuchInode;
        for _ in 0..MOVED_TRIES_MAX {
            let Backing::Upper { file, place: Some(place), .. } = self.backing(inode) else { break };
            let parent = self.upper_dir(&place.parent)?;
            match self.with_room(|| how(parent.as_fd(), &place.name)) {
                Ok(fd) => {
                    let found = stat::stat_fd(fd.as_fd())?;
                    if (found.dev, found.ino) == (file.dev, file.ino) {
                        return Ok(fd);
                    }
                }
                Err(error) if error.is(libc::ENOENT) || error.is(libc::ENOTDIR) || error.is(libc::ELOOP) => {
                    last = error
                }
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Runs something that opens descriptors; where the process has none left, closes some and tries once more. What failed so
    /// has changed nothing, so a whole operation can be tried again.
    pub(super) fn with_room<T>(&self, open: impl Fn() -> Result<T>) -> Result<T> {
        match open() {
            Err(error) if error.is(libc::EMFILE) => {
                self.descriptors.halve();
                open()
            }
            other => other,
        }
    }
}
