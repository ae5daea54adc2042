//! Moving a name.
//!
//! Owns the order of steps by which a name moves over layers. Invariant: the move itself is one rename of the upper layer;
//! what comes before it changes nothing that a user can see.

use super::Union;
use super::copy_up::{Amount, keep_times, logged};
use super::inode::{Inode, InodeNumber, Place};
use super::lookup::NAME_BYTES_MAX;
use super::merge::Visible;
use crate::error::{Error, Result};
use crate::layer::{Entry, Upper, list};
use crate::sys::rename::At;
use crate::sys::{open, stat};
use parking_lot::RwLockWriteGuard;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::sync::Arc;

/// How a name that is taken is treated; see renameat2(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RenameFlags {
    /// The new name must not exist.
    pub no_replace: bool,
    /// Both names exist and are swapped.
    pub exchange: bool,
}

/// How often the names may change between the copy-up and the locks.
const CHANGED_TRIES_MAX: usize = 16;

/// One side of a rename.
struct Side<'a> {
    dir: &'a Arc<Inode>,
    name: &'a OsStr,
}

impl Union {
    /// Moves a name.
    pub fn rename(
        &self,
        from: InodeNumber,
        name: &OsStr,
        to: InodeNumber,
        new_name: &OsStr,
        flags: RenameFlags,
    ) -> Result<()> {
        let (from, to) = (self.dir(from)?, self.dir(to)?);
        let upper = self.new_name(new_name)?;
        if name.len() > NAME_BYTES_MAX {
            return Err(Error::NameTooLong);
        }
        if flags.no_replace && flags.exchange {
            return Err(Error::InvalidArgument);
        }
        let (old, new) = (Side { dir: &from, name }, Side { dir: &to, name: new_name });
        self.with_room(|| self.move_side(upper, &old, &new, flags))
    }

    fn move_side(&self, upper: &Upper, old: &Side<'_>, new: &Side<'_>, flags: RenameFlags) -> Result<()> {
        for _ in 0..CHANGED_TRIES_MAX {
            let source = self.bring_up(upper, old)?.ok_or(Error::NotFound)?;
            let target = match flags.exchange {
                true => Some(self.bring_up(upper, new)?.ok_or(Error::NotFound)?),
                false => {
                    self.copy_up(new.dir, Amount::Whole)?;
                    None
                }
            };
            let _locks = lock_both(old.dir, new.dir);
            if !self.is_up(old, &source)?
                || target.as_ref().is_some_and(|target| !self.is_up(new, target).unwrap_or(false))
            {
                continue;
            }
            return match target {
                Some(target) => self.exchange(upper, old, new, &source, &target),
                None => self.replace(upper, old, new, &source, flags.no_replace),
            };
        }
        Err(Error::NotFound)
    }

    /// Makes a name a name of the upper layer, so that it can be moved there. `None` where it does not exist.
    fn bring_up(&self, upper: &Upper, side: &Side<'_>) -> Result<Option<Arc<Inode>>> {
        let inode = {
            let _children = side.dir.children.read();
            match self.child(side.dir, side.name)? {
                Some(inode) => inode,
                None => return Ok(None),
            }
        };
        if inode.is_dir() && !inode.lower_parts().is_empty() {
            return Err(Error::CrossLayer);
        }
        self.copy_up(side.dir, Amount::Whole)?;
        self.copy_up(&inode, Amount::Whole)?;
        let _children = side.dir.children.write();
        // A hard link of a lower file that was copied up under another name.
        if self.probe_upper(side.dir, side.name)? == Entry::Absent && !inode.is_removed() {
            let (file, at) = (self.path_fd(&inode)?, self.upper_dir(side.dir)?);
            let before = stat::stat_fd(at.as_fd())?;
            self.touch(side.dir, side.name);
            upper.link(file.as_fd(), at.as_fd(), side.name)?;
            keep_times(at.as_fd(), &before);
            let mut state = inode.state.write();
            state.nlink_delta -= 1;
            if let Some(key) = &state.link_key {
                let stored = self.links.store_nlink(upper, file.as_fd(), key, state.nlink_delta);
                logged("set the link count", stored);
            }
        }
        Ok(Some(inode))
    }

    fn is_up(&self, side: &Side<'_>, inode: &Arc<Inode>) -> Result<bool> {
        let current = self.child(side.dir, side.name)?;
        let in_upper = matches!(self.probe_upper(side.dir, side.name)?, Entry::Leaf(_) | Entry::Dir { .. });
        Ok(in_upper && current.is_some_and(|current| Arc::ptr_eq(&current, inode)))
    }

    fn shows_below(&self, side: &Side<'_>) -> Result<bool> {
        Ok(self.probe_below(side.dir, side.name)? != Visible::Nothing)
    }

    /// A directory that comes to lie over something of the layers below must not merge with it.
    fn cover(&self, upper: &Upper, moved: &Arc<Inode>, to: &Side<'_>) -> Result<()> {
        if !moved.is_dir() || moved.state.read().upper_marks.opaque || !self.shows_below(to)? {
            return Ok(());
        }
        upper.make_opaque(self.upper_dir(moved)?.as_fd())?;
        moved.state.write().upper_marks.opaque = true;
        Ok(())
    }

    fn exchange(
        &self,
        upper: &Upper,
        old: &Side<'_>,
        new: &Side<'_>,
        source: &Arc<Inode>,
        target: &Arc<Inode>,
    ) -> Result<()> {
        if Arc::ptr_eq(source, target) {
            return Ok(());
        }
        self.cover(upper, source, new)?;
        self.cover(upper, target, old)?;
        let (from, to) = (self.upper_dir(old.dir)?, self.upper_dir(new.dir)?);
        upper.exchange(At { dir: from.as_fd(), name: old.name }, At { dir: to.as_fd(), name: new.name })?;
        moved_to(source, new);
        moved_to(target, old);
        Ok(())
    }

    fn replace(
        &self,
        upper: &Upper,
        old: &Side<'_>,
        new: &Side<'_>,
        source: &Arc<Inode>,
        no_replace: bool,
    ) -> Result<()> {
        let target = self.child(new.dir, new.name)?;
        let replaced = match &target {
            None => None,
            Some(_) if no_replace => return Err(Error::Exists),
            Some(target) if Arc::ptr_eq(source, target) => return Ok(()),
            Some(target) => {
                let inside = target.is_dir().then(|| target.children.write());
                match (source.is_dir(), target.is_dir()) {
                    (true, false) => return Err(Error::NotDirectory),
                    (false, true) => return Err(Error::IsDirectory),
                    (true, true) => self.check_empty(target)?,
                    (false, false) => {}
                }
                Some((target, self.prepare_loss(target)?, inside))
            }
        };
        self.cover(upper, source, new)?;
        let there = self.probe_upper(new.dir, new.name)?;
        self.move_name(upper, old, new, source.is_dir(), &there)?;
        if let Some((target, survival, _inside)) = replaced {
            let in_upper = matches!(there, Entry::Leaf(_) | Entry::Dir { .. });
            self.name_lost(upper, new.dir, new.name, target, survival, in_upper);
        }
        moved_to(source, new);
        Ok(())
    }

    /// The renames of the upper layer, for each thing that can stand under the new name.
    fn move_name(&self, upper: &Upper, old: &Side<'_>, new: &Side<'_>, is_dir: bool, there: &Entry) -> Result<()> {
        self.touch(old.dir, old.name);
        self.touch(new.dir, new.name);
        let (from, to) = (self.upper_dir(old.dir)?, self.upper_dir(new.dir)?);
        let (from, to) = (At { dir: from.as_fd(), name: old.name }, At { dir: to.as_fd(), name: new.name });
        let hide_old = self.shows_below(old)?;
        let device = *there == Entry::Whiteout && open::exists(to.dir, to.name)?;
        let marked = matches!(there, Entry::Dir { .. }) && !list(open::open_dir(to.dir, to.name)?.as_fd())?.is_empty();
        match (is_dir && (device || marked), hide_old) {
            // The whiteout of the new name becomes that of the old one.
            (true, true) if device => upper.exchange(from, to)?,
            (true, _) => swap_and_take(upper, from, to, hide_old)?,
            (false, true) => upper.rename_leaving_whiteout(from, to)?,
            (false, false) => upper.rename(from, to)?,
        }
        if *there == Entry::Whiteout {
            logged("remove a whiteout", upper.remove_dot_whiteout(to.dir, to.name));
        }
        Ok(())
    }
}

/// Moves a directory over what rename(2) cannot replace, a device or a directory that holds marks: swaps the two, then takes
/// away what came to the old name, or swaps back.
fn swap_and_take(upper: &Upper, from: At<'_>, to: At<'_>, hide_old: bool) -> Result<()> {
    upper.exchange(from, to)?;
    let taken = match hide_old {
        true => upper.replace_by_whiteout(from.dir, from.name),
        false => upper.remove(from.dir, from.name),
    };
    if taken.is_err() {
        upper.exchange(from, to)?;
    }
    taken
}

fn moved_to(inode: &Arc<Inode>, side: &Side<'_>) {
    let place = Some(Arc::new(Place { parent: side.dir.clone(), name: side.name.into() }));
    let mut state = inode.state.write();
    state.pin = None;
    // The old place goes after the lock: dropping it may drop the last reference to a directory.
    let before = std::mem::replace(&mut state.place, place);
    drop(state);
    drop(before);
}

/// Locks two directories: the one above first, else the one with the smaller number.
fn lock_both<'a>(
    from: &'a Arc<Inode>,
    to: &'a Arc<Inode>,
) -> (RwLockWriteGuard<'a, ()>, Option<RwLockWriteGuard<'a, ()>>) {
    if Arc::ptr_eq(from, to) {
        return (from.children.write(), None);
    }
    let first_is_from = is_above(from, to) || (!is_above(to, from) && from.number < to.number);
    let (first, second) = if first_is_from { (from, to) } else { (to, from) };
    (first.children.write(), Some(second.children.write()))
}

fn is_above(above: &Arc<Inode>, below: &Arc<Inode>) -> bool {
    let mut current = below.clone();
    loop {
        let place = current.state.read().place.clone();
        let Some(place) = place else { return false };
        if Arc::ptr_eq(&place.parent, above) {
            return true;
        }
        current = place.parent.clone();
    }
}
