//! New names: files, directories, links, nodes.
//!
//! Owns who owns a new file and which mode it gets. Invariant: a new name appears whole, by one call; where it takes the
//! place of a whiteout it is built in the work directory first.

use super::acl;
use super::copy_up::Amount;
use super::descriptors::Use;
use super::inode::{Below, Identity, Inode, InodeNumber, Kind, Place, State, UpperFile, XattrsSeen};
use super::lookup::NAME_BYTES_MAX;
use super::merge::Visible;
use super::{Attributes, Caller, Union};
use crate::error::{Error, Result};
use crate::layer::{DirMarks, Entry, LayerId, Node, OverrideStat, Upper, is_reserved};
use crate::sys::credentials::{AsOwner, act_as};
use crate::sys::stat::Stat;
use crate::sys::{stat, xattr};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

impl Union {
    /// Makes a regular file, fifo, socket or device; counts a lookup. `mode` carries the type.
    pub fn make_node(
        &self,
        caller: &Caller,
        parent: InodeNumber,
        name: &OsStr,
        mode: u32,
        rdev: u64,
    ) -> Result<Attributes> {
        let node = match mode & libc::S_IFMT {
            libc::S_IFREG | 0 => Node::File,
            libc::S_IFDIR | libc::S_IFLNK => return Err(Error::InvalidArgument),
            // A user's device 0:0 would be a whiteout: see overlayfs.rst, "whiteouts and opaque directories".
            libc::S_IFCHR if rdev == 0 => return Err(Error::NotPermitted),
            format => Node::Special(format, rdev),
        };
        self.add(caller, parent, name, node, mode).map(|(_, attributes)| attributes)
    }

    /// Makes a directory; counts a lookup.
    pub fn make_dir(&self, caller: &Caller, parent: InodeNumber, name: &OsStr, mode: u32) -> Result<Attributes> {
        self.add(caller, parent, name, Node::Dir, mode).map(|(_, attributes)| attributes)
    }

    /// Makes a symbolic link; counts a lookup.
    pub fn symlink(&self, caller: &Caller, parent: InodeNumber, name: &OsStr, target: &OsStr) -> Result<Attributes> {
        self.add(caller, parent, name, Node::Symlink(target), 0o777).map(|(_, attributes)| attributes)
    }

    /// Makes a regular file and opens it; counts a lookup and an open.
    pub fn create(&self, caller: &Caller, parent: InodeNumber, name: &OsStr, mode: u32) -> Result<Attributes> {
        let (inode, attributes) = self.add(caller, parent, name, Node::File, mode)?;
        inode.opened();
        self.hold_before(&inode, attributes.mode)?;
        Ok(attributes)
    }

    /// Gives a file a further name; counts a lookup.
    pub fn link(&self, inode: InodeNumber, parent: InodeNumber, name: &OsStr) -> Result<Attributes> {
        let (inode, dir) = (self.inode(inode)?, self.dir(parent)?);
        self.with_room(|| self.link_to(&inode, &dir, name))?;
        inode.add_lookups(1);
        self.attributes_of(&inode, None)
    }

    fn link_to(&self, inode: &Arc<Inode>, dir: &Arc<Inode>, name: &OsStr) -> Result<()> {
        let upper = self.new_name(name)?;
        match inode.is_dir() {
            true => return Err(Error::NotPermitted),
            false if inode.is_removed() => return Err(Error::NotFound),
            false => {}
        }
        self.copy_up(inode, Amount::Whole)?;
        self.copy_up(dir, Amount::Whole)?;
        let _children = dir.children.write();
        let covered = self.free_name(dir, name)?;
        let (file, to) = (self.path_fd(inode)?, self.upper_dir(dir)?);
        let _changing = self.touch(dir, name);
        match covered {
            Covered::Nothing => upper.link(file.as_fd(), to.as_fd(), name)?,
            Covered::Whiteout => {
                let built = upper.work().temporary();
                upper.link(file.as_fd(), built.dir(), built.name())?;
                upper.publish_over_whiteout(built, false, to.as_fd(), name)?;
            }
        }
        self.entered(inode, None);
        {
            let mut state = inode.state.write();
            if state.place.is_none() {
                state.place = Some(Arc::new(Place { parent: dir.clone(), name: name.into() }));
                state.pin = None;
            }
        }
        Ok(())
    }

    fn add(
        &self,
        caller: &Caller,
        parent: InodeNumber,
        name: &OsStr,
        node: Node<'_>,
        mode: u32,
    ) -> Result<(Arc<Inode>, Attributes)> {
        self.with_room(|| self.try_to_add(caller, parent, name, node, mode))?
    }

    /// The outer result is that of everything up to publication: only that may be tried again, or the name would be found taken. The inner
    /// one is of telling what was made.
    fn try_to_add(
        &self,
        caller: &Caller,
        parent: InodeNumber,
        name: &OsStr,
        node: Node<'_>,
        mode: u32,
    ) -> Result<Result<(Arc<Inode>, Attributes)>> {
        let dir = self.dir(parent)?;
        let upper = self.new_name(name)?;
        if !dir.in_upper() {
            // Nothing is copied up for a name that is taken.
            let _children = dir.children.read();
            self.free_name(&dir, name)?;
        }
        self.copy_up(&dir, Amount::Whole)?;
        let _children = dir.children.write();
        let covered = self.free_name(&dir, name)?;
        let at = self.upper_dir(&dir)?;
        let _changing = self.touch(&dir, name);
        let new = NewNode { dir: &dir, at: at.as_fd(), name, node, mode: mode & 0o7777 };
        let fd = match covered {
            Covered::Nothing if upper.override_stat() == OverrideStat::Off => self.add_directly(upper, caller, &new)?,
            _ => self.add_by_rename(upper, caller, &new, covered)?,
        };
        Ok(self.show_new(upper, &new, fd, covered))
    }

    /// The inode of what was just made, and its attributes.
    fn show_new(
        &self,
        upper: &Upper,
        new: &NewNode<'_>,
        fd: Option<OwnedFd>,
        covered: Covered,
    ) -> Result<(Arc<Inode>, Attributes)> {
        let found = match &fd {
            Some(fd) => upper.layer().stat_fd(fd.as_fd())?,
            None => self.with_room(|| upper.layer().stat_at(new.at, new.name))?.ok_or(Error::NotFound)?,
        };
        let inode = self.fresh(new.dir, new.name, &found, covered);
        if let Some(fd) = fd {
            self.descriptors.insert(inode.number, Use::Write, fd);
        }
        let attributes = self.attributes_of(&inode, Some(found))?;
        Ok((inode, attributes))
    }

    /// Checks a new name, and that there is a layer to write it to.
    pub(super) fn new_name(&self, name: &OsStr) -> Result<&Upper> {
        let upper = self.stack.upper()?;
        if name.len() > NAME_BYTES_MAX {
            return Err(Error::NameTooLong);
        }
        match is_reserved(name) {
            true => Err(Error::InvalidName),
            false => Ok(upper),
        }
    }

    /// Makes sure that the union shows nothing under a name; tells what the upper layer has there all the same.
    fn free_name(&self, dir: &Arc<Inode>, name: &OsStr) -> Result<Covered> {
        if dir.is_removed() {
            return Err(Error::NotFound);
        }
        match self.probe_upper(dir, name)? {
            Entry::Whiteout => Ok(Covered::Whiteout),
            Entry::Absent if self.probe_below(dir, name)? == Visible::Nothing => Ok(Covered::Nothing),
            _ => Err(Error::Exists),
        }
    }

    fn add_directly(&self, upper: &Upper, caller: &Caller, new: &NewNode<'_>) -> Result<Option<OwnedFd>> {
        // A default list takes the place of the umask, and the filesystem below applies it.
        let mode = match self.has_default_acl(new.dir, new.at)? {
            true => new.mode,
            false => new.mode & !caller.umask,
        };
        let _owner = self.owner(caller)?;
        self.with_room(|| upper.make(new.at, new.name, new.node, mode))
    }

    fn add_by_rename(
        &self,
        upper: &Upper,
        caller: &Caller,
        new: &NewNode<'_>,
        covered: Covered,
    ) -> Result<Option<OwnedFd>> {
        let (built, fd) = self.with_room(|| upper.build(new.node, None))?;
        let parent = upper.layer().stat_fd(new.at)?;
        let is_dir = matches!(new.node, Node::Dir);
        let mut mode = new.mode;
        let default = xattr::value(new.at, OsStr::new(acl::DEFAULT))?.filter(|_| self.acl);
        let mut list = None;
        match &default {
            Some(default) if !matches!(new.node, Node::Symlink(_)) => (mode, list) = acl::inherit(default, mode)?,
            _ => mode &= !caller.umask,
        }
        let mut gid = self.ids.stored_gid(caller.gid)?;
        if parent.mode & libc::S_ISGID != 0 {
            gid = Some(parent.gid);
            mode |= if is_dir { libc::S_ISGID } else { 0 };
        }
        let shown = shape(&new.node, stat::stat_fd(fd.as_fd())?);
        upper.set_owner_and_mode(fd.as_fd(), &shown, (self.ids.stored_uid(caller.uid)?, gid), Some(mode))?;
        if let Some(list) = list {
            xattr::set(fd.as_fd(), OsStr::new(acl::ACCESS), &list, 0)?;
        }
        if is_dir {
            if let Some(default) = default {
                xattr::set(fd.as_fd(), OsStr::new(acl::DEFAULT), &default, 0)?;
            }
            if covered == Covered::Whiteout {
                upper.make_opaque(fd.as_fd())?;
            }
        }
        match covered {
            Covered::Nothing => upper.publish(built, new.at, new.name)?,
            Covered::Whiteout => upper.publish_over_whiteout(built, is_dir, new.at, new.name)?,
        }
        Ok(matches!(new.node, Node::File).then_some(fd))
    }

    /// New files belong to the caller while the answer lives.
    fn owner(&self, caller: &Caller) -> Result<Option<AsOwner>> {
        let uid = self.ids.stored_uid(caller.uid)?.unwrap_or(self.privilege.uid);
        let gid = self.ids.stored_gid(caller.gid)?.unwrap_or(self.privilege.gid);
        match (uid, gid) == (self.privilege.uid, self.privilege.gid) {
            true => Ok(None),
            false => act_as(uid, gid).map(Some),
        }
    }

    fn has_default_acl(&self, dir: &Inode, at: BorrowedFd<'_>) -> Result<bool> {
        if let Some(known) = dir.state.read().default_acl {
            return Ok(known);
        }
        let found = xattr::value(at, OsStr::new(acl::DEFAULT))?.is_some();
        dir.state.write().default_acl = Some(found);
        Ok(found)
    }

    /// The inode of a file that was just made; counts a lookup.
    fn fresh(&self, dir: &Arc<Inode>, name: &OsStr, found: &Stat, covered: Covered) -> Arc<Inode> {
        let identity = Identity { layer: LayerId::UPPER, dev: found.dev, ino: found.ino };
        let number = |attempt| self.numbering.number(found.dev, found.ino, attempt);
        let state = State {
            upper: Some(UpperFile { dev: found.dev, ino: found.ino }),
            upper_marks: DirMarks { opaque: covered == Covered::Whiteout, xattr_whiteouts: false },
            place: Some(Arc::new(Place { parent: dir.clone(), name: name.into() })),
            xattrs: XattrsSeen::NoCapability,
            ..State::default()
        };
        let kind = Kind::from_mode(found.mode);
        let inode =
            self.table.intern(identity, 1, number, |number| Inode::new(number, kind, Below::Nothing, None, state));
        self.entered(&inode, Some(found));
        if inode.is_dir() {
            // It was just made: the upper layer says nothing in it yet.
            *inode.known_names().upper.write() = Some(HashSet::new());
        }
        inode
    }
}

/// What the upper layer has under a name that the union does not show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Covered {
    Nothing,
    Whiteout,
}

struct NewNode<'a> {
    dir: &'a Arc<Inode>,
    at: BorrowedFd<'a>,
    name: &'a OsStr,
    node: Node<'a>,
    mode: u32,
}

/// The attributes that a built node is to show, where its own type is not the one that was asked for.
fn shape(node: &Node<'_>, built: Stat) -> Stat {
    match node {
        Node::Special(format, rdev) => Stat { mode: format | built.mode & 0o7777, rdev: *rdev, ..built },
        _ => built,
    }
}
