//! Names that go: unlink, rmdir, and what is left of a file whose name went.
//!
//! Owns the decision between removing and hiding, and the life of a file without names. Invariant: nothing is ever copied
//! up to be deleted.

use super::Union;
use super::backing::Handle;
use super::copy_up::Amount;
use super::inode::{Below, Inode, InodeNumber, Kind};
use super::merge::Seen;
use crate::error::{Error, Result};
use crate::layer::{Entry, Upper};
use crate::sys::open::Access;
use crate::sys::stat;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// What a file needs to live on without the name that is about to go.
pub(super) struct Survival {
    reference: Option<Arc<OwnedFd>>,
    data: Option<Arc<OwnedFd>>,
    /// Names of the upper file before.
    upper_nlink: u32,
}

impl Union {
    /// Removes a name that is not a directory.
    pub fn remove_file(&self, parent: InodeNumber, name: &OsStr) -> Result<()> {
        let dir = self.dir(parent)?;
        self.with_room(|| self.remove_leaf(&dir, name))
    }

    fn remove_leaf(&self, dir: &Arc<Inode>, name: &OsStr) -> Result<()> {
        let upper = self.stack.upper()?;
        self.ready_to_hide(dir, name)?;
        let _children = dir.children.write();
        let (seen, inode) = self.seen(dir, name)?;
        let inode = inode.ok_or(Error::NotFound)?;
        if inode.is_dir() {
            return Err(Error::IsDirectory);
        }
        let survival = self.prepare_loss(&inode, &seen.upper)?;
        self.take_name(upper, dir, name, &seen)?;
        self.name_lost(upper, dir, name, &inode, survival, seen.in_upper());
        Ok(())
    }

    /// Removes a directory that shows no entries.
    pub fn remove_dir(&self, parent: InodeNumber, name: &OsStr) -> Result<()> {
        let dir = self.dir(parent)?;
        self.with_room(|| self.remove_empty(&dir, name))
    }

    fn remove_empty(&self, dir: &Arc<Inode>, name: &OsStr) -> Result<()> {
        let upper = self.stack.upper()?;
        self.ready_to_hide(dir, name)?;
        let _children = dir.children.write();
        let (seen, inode) = self.seen(dir, name)?;
        let inode = inode.ok_or(Error::NotFound)?;
        if !inode.is_dir() {
            return Err(Error::NotDirectory);
        }
        let _inside = inode.children.write();
        self.check_empty(&inode)?;
        let survival = self.prepare_loss(&inode, &seen.upper)?;
        self.take_name(upper, dir, name, &seen)?;
        self.name_lost(upper, dir, name, &inode, survival, seen.in_upper());
        Ok(())
    }

    /// Brings the directory of a name that may have to be hidden into the upper layer, if there is such a name.
    fn ready_to_hide(&self, dir: &Arc<Inode>, name: &OsStr) -> Result<()> {
        if dir.in_upper() {
            return Ok(());
        }
        let exists = {
            let _children = dir.children.read();
            self.child(dir, name)?.is_some()
        };
        match exists {
            true => self.copy_up(dir, Amount::Whole).map(drop),
            false => Err(Error::NotFound),
        }
    }

    /// Makes a name show nothing.
    fn take_name(&self, upper: &Upper, dir: &Arc<Inode>, name: &OsStr, seen: &Seen) -> Result<()> {
        let at = self.upper_dir(dir)?;
        let _changing = self.touch(dir, name);
        match (seen.upper, seen.is_below()) {
            (Entry::Leaf(_) | Entry::Dir { .. }, false) => upper.remove(at.as_fd(), name),
            (Entry::Leaf(_), true) => upper.replace_by_whiteout(at.as_fd(), name, false),
            (Entry::Dir { .. }, true) => upper.replace_by_whiteout(at.as_fd(), name, true),
            (Entry::Absent | Entry::Whiteout, _) => upper.whiteout(at.as_fd(), name),
        }
    }

    /// Fails where a directory shows an entry. The caller holds its `children`.
    pub(super) fn check_empty(&self, dir: &Arc<Inode>) -> Result<()> {
        match self.shown_names(dir)?.is_empty() {
            true => Ok(()),
            false => Err(Error::NotEmpty),
        }
    }

    /// Opens what an inode needs to live on without a name, while it still has one. `there` is what the upper layer has under it.
    pub(super) fn prepare_loss(&self, inode: &Arc<Inode>, there: &Entry) -> Result<Survival> {
        let shared = |handle: Handle<'_>| match handle {
            Handle::Open(fd) => Some(fd),
            Handle::Root(_) => None,
        };
        if !inode.in_upper() {
            return Ok(Survival { reference: None, data: None, upper_nlink: 0 });
        }
        let handle = self.path_fd(inode)?;
        let upper_nlink = match there {
            Entry::Leaf(found) => found.nlink,
            // Directories are not counted.
            Entry::Dir { .. } => 0,
            // Of a lower file that was copied up under another of its names.
            Entry::Absent | Entry::Whiteout => stat::stat_fd(handle.as_fd())?.nlink,
        };
        let data = match inode.kind == Kind::Regular && inode.opens() > 0 && !self.reopens(inode, handle.as_fd()) {
            true => shared(self.data_fd(inode, Access::ReadWrite)?),
            false => None,
        };
        Ok(Survival { reference: shared(handle), data, upper_nlink })
    }

    /// Notes that a name is gone. It is: whatever fails here is bookkeeping, and is logged.
    pub(super) fn name_lost(
        &self,
        upper: &Upper,
        dir: &Arc<Inode>,
        name: &OsStr,
        inode: &Arc<Inode>,
        survival: Survival,
        in_upper: bool,
    ) {
        let noted = match inode.in_upper() {
            true if inode.is_dir() => {
                self.left(inode);
                let mut state = inode.state.write();
                state.pin = survival.reference;
                state.place = None;
                state.removed = true;
                Ok(())
            }
            true => self.upper_name_lost(upper, dir, name, inode, survival, in_upper),
            false => self.lower_name_lost(upper, dir, name, inode),
        };
        if let Err(error) = noted {
            tracing::warn!(%error, inode = inode.number.0, "the link count of a file is not kept over the next mount");
        }
        if inode.is_removed() {
            self.table.remove_identities(inode);
        }
    }

    fn upper_name_lost(
        &self,
        upper: &Upper,
        dir: &Arc<Inode>,
        name: &OsStr,
        inode: &Arc<Inode>,
        survival: Survival,
        in_upper: bool,
    ) -> Result<()> {
        let (removed, delta, key, file) = {
            let mut state = inode.state.write();
            if !in_upper {
                state.nlink_delta -= 1;
            }
            let left =
                survival.upper_nlink.saturating_sub(u32::from(in_upper)).saturating_add_signed(state.nlink_delta);
            state.removed = left == 0;
            // Its entry in the hard link index is no name in the layer's tree.
            let named = survival.upper_nlink > u32::from(in_upper) + u32::from(state.link_key.is_some());
            if !named {
                self.left(inode);
            }
            let was_here = state.place.as_ref().is_some_and(|place| place.is(dir, name));
            if state.removed || was_here || state.place.is_none() {
                state.place = None;
                state.pin = survival.reference.clone().or(state.pin.take());
                state.held = survival.data.or(state.held.take());
            }
            (state.removed, state.nlink_delta, state.link_key.clone(), state.upper)
        };
        match (removed, key) {
            (true, key) => {
                if let Some(key) = key {
                    self.links.remove(upper, &key)?;
                    inode.state.write().link_key = None;
                }
                match (&self.origins, file) {
                    (Some(origins), Some(file)) => origins.forget(upper, file.ino),
                    _ => Ok(()),
                }
            }
            (false, Some(key)) if !in_upper => match &survival.reference {
                Some(reference) => {
                    let _changing = self.changing(inode);
                    self.links.store_nlink(upper, reference.as_fd(), &key, delta)
                }
                None => Ok(()),
            },
            (false, _) => Ok(()),
        }
    }

    fn lower_name_lost(&self, upper: &Upper, dir: &Arc<Inode>, name: &OsStr, inode: &Arc<Inode>) -> Result<()> {
        let Below::Leaf { identity, nlink, .. } = inode.below else {
            let mut state = inode.state.write();
            state.removed = true;
            state.place = None;
            return Ok(());
        };
        let hidden = {
            let mut state = inode.state.write();
            state.nlink_delta -= 1;
            if state.place.as_ref().is_some_and(|place| place.is(dir, name)) {
                state.place = None;
            }
            state.removed = nlink.saturating_add_signed(state.nlink_delta) == 0;
            state.nlink_delta.unsigned_abs()
        };
        if nlink == 1 {
            return Ok(());
        }
        let parent = self.dir_fd(dir, identity.layer)?;
        let Some(found) = stat::stat_at(parent.as_fd(), name)? else { return Ok(()) };
        let (key, _) = self.link_key(identity.layer, parent.as_fd(), name, &found)?;
        self.links.hide(upper, &key, hidden)
    }
}
