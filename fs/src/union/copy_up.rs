//! Bringing a file of a lower layer into the upper one.
//!
//! Owns what is copied and in which order; `fill` makes the copy like the file. Invariant: the copy is complete, attributes and all, before one rename
//! publishes it; whatever fails before leaves the tree as it was.

mod fill;

use super::Union;
use super::descriptors::Use;
use super::inode::{Below, Identity, Inode, Kind, Place, UpperFile};
use super::links::store_origin;
use crate::error::{Error, Result};
use crate::layer::{Layer, LayerId, Node, Temporary, Upper};
use crate::sys::copy::{Copied, truncate};
use crate::sys::open::{self, Access};
use crate::sys::stat::{self, Stat, TimeChange, Timestamp};
pub use fill::Sharing;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// How much of a regular file's data is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Amount {
    /// All of it.
    Whole,
    /// The first bytes: the file is being cut, or grown, to this size, which the copy then has.
    Cut(u64),
}

/// A finished copy that nobody sees yet.
struct Copy<'a> {
    built: Temporary<'a>,
    fd: OwnedFd,
    file: UpperFile,
    nlink_delta: i32,
    link_key: Option<Arc<str>>,
}

impl Union {
    /// Makes sure that the upper layer holds an inode. Whether this call brought it there.
    pub(super) fn copy_up(&self, inode: &Arc<Inode>, amount: Amount) -> Result<bool> {
        let upper = self.stack.upper()?;
        if inode.in_upper() {
            return Ok(false);
        }
        if inode.is_dir() {
            return self.copy_up_dir(upper, inode);
        }
        let _copying = inode.copying.lock();
        if inode.in_upper() {
            return Ok(false);
        }
        let Below::Leaf { identity, nlink, .. } = inode.below else { return Err(Error::NoSuchInode) };
        let home = inode.home.clone().ok_or(Error::NoSuchInode)?;
        match self.copy_up_parent(inode, &home) {
            // A removed file is written through its open descriptors: its copy needs no directory.
            Err(_) if inode.is_removed() => {}
            other => {
                other?;
            }
        }
        let copy = self.build_copy(upper, inode, &home, identity, nlink, amount)?;
        self.show_copy(upper, inode, copy, &home)?;
        if nlink == 1 {
            // Nothing else shows the lower file, so nothing may be taken for it.
            self.table.remove_identity(inode, identity);
        }
        Ok(true)
    }

    fn copy_up_parent(&self, inode: &Inode, home: &Place) -> Result<bool> {
        match inode.is_removed() {
            true => Ok(false),
            false => self.copy_up(&home.parent, Amount::Whole),
        }
    }

    /// Bytes that a write to an inode would first have to copy; 0 where it is in the upper layer.
    pub fn copies_data(&self, inode: super::InodeNumber) -> u64 {
        match self.inode(inode) {
            Ok(inode) => bytes_to_copy(&inode),
            Err(_) => 0,
        }
    }

    fn build_copy<'a>(
        &self,
        upper: &'a Upper,
        inode: &Arc<Inode>,
        home: &Place,
        identity: Identity,
        nlink: u32,
        amount: Amount,
    ) -> Result<Copy<'a>> {
        let layer = self.stack.layer(identity.layer)?;
        let source = match (inode.kind, amount) {
            (Kind::Regular, Amount::Whole | Amount::Cut(1..)) => self.data_fd(inode, Access::Read)?,
            _ => self.path_fd(inode)?,
        };
        let shape = match self.index_stat(inode) {
            Some(stat) => stat?,
            None => layer.stat_fd(source.as_fd())?,
        };
        let target = match inode.kind {
            Kind::Symlink => open::read_link_fd(source.as_fd())?,
            _ => Vec::new(),
        };
        let node = match inode.kind {
            Kind::Regular => Node::File,
            Kind::Symlink => Node::Symlink(OsStr::from_bytes(&target)),
            _ => Node::Special(shape.format(), shape.rdev),
        };
        let (built, fd) = self.with_room(|| upper.build(node, self.lasting_permissions(&shape)))?;
        if inode.kind == Kind::Regular {
            let length = match amount {
                Amount::Whole => shape.size,
                Amount::Cut(length) => shape.size.min(length),
            };
            let copied = self.fill(&shape, source.as_fd(), fd.as_fd(), length)?;
            if let Amount::Cut(size) = amount
                && size > shape.size
            {
                truncate(fd.as_fd(), size)?;
            }
            // Without it a power cut could leave the name with an empty file: the rename may reach the disk first.
            if copied == Copied::Written && self.sync {
                stat::sync(fd.as_fd(), false)?;
            }
        }
        let found = self.dress(upper, inode, (source.as_fd(), &shape), fd.as_fd())?;
        if let Some(origins) = &self.origins {
            origins.store(upper, fd.as_fd(), &found, inode.number.0)?;
        }
        let mut copy =
            Copy { built, fd, file: UpperFile { dev: found.dev, ino: found.ino }, nlink_delta: 0, link_key: None };
        let mtime = match amount {
            Amount::Whole => TimeChange::At(shape.mtime),
            Amount::Cut(_) => TimeChange::Now,
        };
        stat::set_times(copy.fd.as_fd(), TimeChange::At(shape.atime), mtime)?;
        if nlink > 1 && !inode.is_removed() {
            self.index_copy(upper, inode, home, layer, &shape, nlink, &mut copy)?;
        }
        Ok(copy)
    }

    /// Enters the copy of a file with several names into the hard link index.
    #[expect(clippy::too_many_arguments, reason = "one caller, which has just gathered all of them")]
    fn index_copy(
        &self,
        upper: &Upper,
        inode: &Inode,
        home: &Place,
        layer: &Layer,
        shape: &Stat,
        nlink: u32,
        copy: &mut Copy<'_>,
    ) -> Result<()> {
        let parent = self.dir_fd(&home.parent, layer.id())?;
        let raw = stat::stat_at(parent.as_fd(), &home.name)?.unwrap_or(*shape);
        let (key, fb) = self.link_key(layer.id(), parent.as_fd(), &home.name, &raw)?;
        copy.nlink_delta = delta_of_copy(inode, nlink, inode.state.read().place.is_some());
        if let Some(fb) = fb {
            store_origin(upper, copy.fd.as_fd(), &fb)?;
        }
        self.links.store_nlink(upper, copy.fd.as_fd(), &key, copy.nlink_delta)?;
        self.links.add(upper, &key, copy.fd.as_fd())?;
        copy.link_key = Some(key);
        Ok(())
    }

    /// Publishes a copy under its name and lets the inode show it.
    fn show_copy(&self, upper: &Upper, inode: &Arc<Inode>, copy: Copy<'_>, home: &Arc<Place>) -> Result<()> {
        let _children = home.parent.children.write();
        let identity = Identity { layer: LayerId::UPPER, dev: copy.file.dev, ino: copy.file.ino };
        // A name can go while data is copied; the copy then lives on without one.
        let removed = inode.is_removed();
        let place = match removed {
            true => None,
            false => inode.state.read().place.clone(),
        };
        let published = match &place {
            // The temporary name goes with the drop of `built`; the descriptor keeps the file.
            None => {
                drop(copy.built);
                Ok(())
            }
            Some(place) => self.publish(upper, copy.built, place, Arc::ptr_eq(&place.parent, &home.parent)),
        };
        if let Err(error) = published {
            if let Some(key) = &copy.link_key {
                self.links.remove(upper, key)?;
            }
            return Err(error);
        }
        let mut nlink_delta = copy.nlink_delta;
        if let Some(key) = &copy.link_key
            && let Below::Leaf { nlink, .. } = inode.below
        {
            // Names may have gone while data was copied.
            nlink_delta = delta_of_copy(inode, nlink, place.is_some());
            if nlink_delta != copy.nlink_delta {
                logged("set the link count", self.links.store_nlink(upper, copy.fd.as_fd(), key, nlink_delta));
            }
        }
        let nameless = place.is_none();
        let fd = match inode.kind {
            Kind::Regular => self.descriptors.insert(inode.number, Use::Write, copy.fd),
            _ => self.descriptors.insert(inode.number, Use::Path { upper: true }, copy.fd),
        };
        {
            let mut state = inode.state.write();
            state.copied(copy.file);
            state.place = place;
            state.nlink_delta = nlink_delta;
            state.link_key = copy.link_key;
            if nameless {
                state.pin = Some(fd.clone());
            }
            if removed || (inode.opens() > 0 && inode.kind == Kind::Regular && !self.reopens(inode, fd.as_fd())) {
                state.held = Some(fd).filter(|_| inode.kind == Kind::Regular);
            }
        }
        if !nameless {
            self.entered(inode, None);
        }
        if !removed {
            self.table.add_identity(inode, identity);
        }
        // Nothing asks for the lower file any more.
        self.descriptors.forget(inode.number, [Use::Path { upper: false }, Use::Read { upper: false }]);
        Ok(())
    }

    /// Renames a built file to its place and gives the directory back its time: nothing visible has changed in it. `locked`:
    /// the caller holds the directory's `children` for writing.
    fn publish(&self, upper: &Upper, built: Temporary<'_>, place: &Place, locked: bool) -> Result<()> {
        let parent = self.upper_dir(&place.parent)?;
        let mtime = self.names_mtime(&place.parent, parent.as_fd(), locked)?;
        let _changing = self.touch(&place.parent, &place.name);
        upper.publish(built, parent.as_fd(), &place.name)?;
        self.keep_names_mtime(&place.parent, parent.as_fd(), mtime, locked);
        Ok(())
    }

    /// When the names of a directory of the upper layer last changed, as a user sees it.
    pub(super) fn names_mtime(&self, dir: &Inode, fd: BorrowedFd<'_>, locked: bool) -> Result<Timestamp> {
        match dir.state.read().names_mtime.filter(|_| locked) {
            Some(known) => Ok(known),
            None => Ok(stat::stat_fd(fd)?.mtime),
        }
    }

    /// Gives a directory back its time after a change of its names that is not to be seen.
    pub(super) fn keep_names_mtime(&self, dir: &Inode, fd: BorrowedFd<'_>, mtime: Timestamp, locked: bool) {
        let kept = stat::set_times(fd, TimeChange::Keep, TimeChange::At(mtime));
        dir.state.write().names_mtime = Some(mtime).filter(|_| locked && kept.is_ok());
        logged("keep the time of a directory", kept);
    }

    fn copy_up_dir(&self, upper: &Upper, dir: &Arc<Inode>) -> Result<bool> {
        let _copying = dir.copying.lock();
        if dir.in_upper() {
            return Ok(false);
        }
        let home = dir.home.clone().ok_or(Error::NoSuchInode)?;
        if dir.is_removed() {
            return Err(Error::NotFound);
        }
        self.copy_up(&home.parent, Amount::Whole)?;
        let source = self.path_fd(dir)?;
        let shape = match self.index_stat(dir) {
            Some(stat) => stat?,
            None => self.layer_of(dir)?.stat_fd(source.as_fd())?,
        };
        let (built, fd) = self.with_room(|| upper.build(Node::Dir, self.lasting_permissions(&shape)))?;
        let found = self.dress(upper, dir, (source.as_fd(), &shape), fd.as_fd())?;
        stat::set_times(fd.as_fd(), TimeChange::At(shape.atime), TimeChange::At(shape.mtime))?;
        let _children = home.parent.children.write();
        if dir.is_removed() {
            return Err(Error::NotFound);
        }
        // Without privilege, a directory that its owner may not write to cannot be moved: it gets its mode where it is going.
        let immovable = !self.privilege.overrides_modes && shape.mode & 0o200 == 0;
        if immovable {
            stat::set_mode(fd.as_fd(), shape.mode | 0o200)?;
        }
        self.publish(upper, built, &home, true)?;
        if immovable {
            logged("set the mode", stat::set_mode(fd.as_fd(), shape.mode));
        }
        self.descriptors.insert(dir.number, Use::Dir(LayerId::UPPER), fd);
        // It was just made: the upper layer says nothing in it yet.
        *dir.known_names().upper.write() = Some(HashSet::new());
        let mut state = dir.state.write();
        state.copied(UpperFile { dev: found.dev, ino: found.ino });
        state.names_mtime = Some(shape.mtime);
        drop(state);
        self.entered(dir, None);
        Ok(true)
    }

    /// Whether this process could open an upper file for reading and writing again.
    pub(super) fn reopens(&self, inode: &Inode, fd: BorrowedFd<'_>) -> bool {
        if self.privilege.overrides_modes || inode.kind != Kind::Regular {
            return true;
        }
        stat::stat_fd(fd).is_ok_and(|found| found.mode & 0o600 == 0o600)
    }

    /// Keeps a data descriptor of an open file whose new mode would forbid opening it again.
    pub(super) fn hold_before(&self, inode: &Arc<Inode>, mode: u32) -> Result<()> {
        let needless = self.privilege.overrides_modes || inode.kind != Kind::Regular || inode.opens() == 0;
        if needless || mode & 0o600 == 0o600 || inode.state.read().held.is_some() {
            return Ok(());
        }
        if let super::backing::Handle::Open(fd) = self.data_fd(inode, Access::ReadWrite)? {
            inode.state.write().held = Some(fd);
        }
        Ok(())
    }
}

/// What a copy's link count lacks to that of the union: the index and a published name are links of the copy, the names
/// that are left in the lower layer are not.
fn delta_of_copy(inode: &Inode, lower_nlink: u32, published: bool) -> i32 {
    let left = i32::try_from(lower_nlink).unwrap_or(i32::MAX) + inode.state.read().nlink_delta;
    left - 1 - i32::from(published)
}

/// Bytes that a write to an inode would first have to copy.
pub(super) fn bytes_to_copy(inode: &Inode) -> u64 {
    match inode.below {
        Below::Leaf { size, .. } if inode.kind == Kind::Regular && !inode.in_upper() => size,
        _ => 0,
    }
}

/// Logs the failure of a step that follows publication: the change has happened, so the caller is told that it has.
pub(super) fn logged(step: &str, result: Result<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, step, "a step after a change failed");
    }
}

#[cfg(test)]
mod tests;
