//! Moving a name.
//!
//! Owns the order of steps by which a name moves over layers. Invariant: the move itself is one rename of the upper layer;
//! what comes before it changes nothing that a user can see.

use super::Union;
use super::copy_up::{Amount, bytes_to_copy, logged};
use super::inode::{Inode, InodeNumber, Place};
use super::lookup::NAME_BYTES_MAX;
use super::merge::Seen;
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
        self.rename_copying(from, name, to, new_name, flags, u64::MAX).map(drop)
    }

    /// Moves a name, unless more than `copy_max` bytes of a lower file would have to be copied first: then nothing has changed,
    /// and the answer is `false`.
    pub fn rename_copying(
        &self,
        from: InodeNumber,
        name: &OsStr,
        to: InodeNumber,
        new_name: &OsStr,
        flags: RenameFlags,
        copy_max: u64,
    ) -> Result<bool> {
        let (from, to) = (self.dir(from)?, self.dir(to)?);
        let upper = self.new_name(new_name)?;
        if name.len() > NAME_BYTES_MAX {
            return Err(Error::NameTooLong);
        }
        if flags.no_replace && flags.exchange {
            return Err(Error::InvalidArgument);
        }
        let (old, new) = (Side { dir: &from, name }, Side { dir: &to, name: new_name });
        self.with_room(|| self.move_side(upper, &old, &new, flags, copy_max))
    }

    fn move_side(
        &self,
        upper: &Upper,
        old: &Side<'_>,
        new: &Side<'_>,
        flags: RenameFlags,
        copy_max: u64,
    ) -> Result<bool> {
        for _ in 0..CHANGED_TRIES_MAX {
            if self.move_what_is_up(upper, old, new, flags)? {
                return Ok(true);
            }
            let sides = [old, new];
            for side in if flags.exchange { &sides[..] } else { &sides[..1] } {
                if !self.bring_up(upper, side, copy_max)? {
                    return Ok(false);
                }
            }
            self.copy_up(new.dir, Amount::Whole)?;
        }
        Err(Error::NotFound)
    }

    /// Moves the name, unless something is still to be brought into the upper layer for that.
    fn move_what_is_up(&self, upper: &Upper, old: &Side<'_>, new: &Side<'_>, flags: RenameFlags) -> Result<bool> {
        if !old.dir.in_upper() || !new.dir.in_upper() {
            return Ok(false);
        }
        let _locks = lock_both(old.dir, new.dir);
        // The new name first: the kernel has just looked it up, and what the lower layers said of it is remembered until the next.
        let (to, target) = self.seen(new.dir, new.name)?;
        let (from, source) = self.seen(old.dir, old.name)?;
        let source = movable(source)?;
        if !from.in_upper() {
            return Ok(false);
        }
        if flags.exchange {
            let target = movable(target)?;
            if !to.in_upper() {
                return Ok(false);
            }
            return self.exchange(upper, (old, &from, &source), (new, &to, &target)).map(|()| true);
        }
        if target.is_some() && flags.no_replace {
            return Err(Error::Exists);
        }
        self.replace(upper, (old, &from, &source), (new, &to, target.as_ref())).map(|()| true)
    }

    /// Makes a name a name of the upper layer, so that it can be moved there; `false` where more than `copy_max` bytes would have
    /// to be copied for that.
    fn bring_up(&self, upper: &Upper, side: &Side<'_>, copy_max: u64) -> Result<bool> {
        let inode = {
            let _children = side.dir.children.read();
            movable(self.child(side.dir, side.name)?)?
        };
        if bytes_to_copy(&inode) > copy_max {
            return Ok(false);
        }
        self.copy_up(side.dir, Amount::Whole)?;
        self.copy_up(&inode, Amount::Whole)?;
        let _children = side.dir.children.write();
        // A hard link of a lower file that was copied up under another name.
        if self.probe_upper(side.dir, side.name)? == Entry::Absent && !inode.is_removed() {
            let (file, at) = (self.path_fd(&inode)?, self.upper_dir(side.dir)?);
            let mtime = self.names_mtime(side.dir, at.as_fd(), true)?;
            let _changing = self.touch(side.dir, side.name);
            upper.link(file.as_fd(), at.as_fd(), side.name)?;
            self.entered(&inode, None);
            self.keep_names_mtime(side.dir, at.as_fd(), mtime, true);
            let mut state = inode.state.write();
            state.nlink_delta -= 1;
            if let Some(key) = &state.link_key {
                let stored = self.links.store_nlink(upper, file.as_fd(), key, state.nlink_delta);
                logged("set the link count", stored);
            }
        }
        Ok(true)
    }

    /// A directory that comes to lie over something of the layers below must not merge with it.
    fn cover(&self, upper: &Upper, moved: &Arc<Inode>, to: &Seen) -> Result<()> {
        if !moved.is_dir() || moved.state.read().upper_marks.opaque || !to.is_below() {
            return Ok(());
        }
        let _changing = self.changing(moved);
        upper.make_opaque(self.upper_dir(moved)?.as_fd())?;
        let mut state = moved.state.write();
        state.upper_marks.opaque = true;
        state.names_mtime = None;
        Ok(())
    }

    fn exchange(
        &self,
        upper: &Upper,
        (old, from, source): (&Side<'_>, &Seen, &Arc<Inode>),
        (new, to, target): (&Side<'_>, &Seen, &Arc<Inode>),
    ) -> Result<()> {
        if Arc::ptr_eq(source, target) {
            return Ok(());
        }
        self.cover(upper, source, to)?;
        self.cover(upper, target, from)?;
        let _changing = (self.touch(old.dir, old.name), self.touch(new.dir, new.name));
        let (from, to) = (self.upper_dir(old.dir)?, self.upper_dir(new.dir)?);
        upper.exchange(At { dir: from.as_fd(), name: old.name }, At { dir: to.as_fd(), name: new.name })?;
        moved_to(source, new);
        moved_to(target, old);
        Ok(())
    }

    fn replace(
        &self,
        upper: &Upper,
        (old, from, source): (&Side<'_>, &Seen, &Arc<Inode>),
        (new, to, target): (&Side<'_>, &Seen, Option<&Arc<Inode>>),
    ) -> Result<()> {
        let replaced = match target {
            None => None,
            Some(target) if Arc::ptr_eq(source, target) => return Ok(()),
            Some(target) => {
                let inside = target.is_dir().then(|| target.children.write());
                match (source.is_dir(), target.is_dir()) {
                    (true, false) => return Err(Error::NotDirectory),
                    (false, true) => return Err(Error::IsDirectory),
                    (true, true) => self.check_empty(target)?,
                    (false, false) => {}
                }
                Some((target, self.prepare_loss(target, &to.upper)?, inside))
            }
        };
        self.cover(upper, source, to)?;
        self.move_name(upper, (old, from.is_below()), new, source.is_dir(), &to.upper)?;
        if let Some((target, survival, _inside)) = replaced {
            self.name_lost(upper, new.dir, new.name, target, survival, to.in_upper());
        }
        moved_to(source, new);
        Ok(())
    }

    /// The renames of the upper layer, for each thing that can stand under the new name.
    fn move_name(
        &self,
        upper: &Upper,
        (old, hide_old): (&Side<'_>, bool),
        new: &Side<'_>,
        is_dir: bool,
        there: &Entry,
    ) -> Result<()> {
        let _changing = (self.touch(old.dir, old.name), self.touch(new.dir, new.name));
        let (from, to) = (self.upper_dir(old.dir)?, self.upper_dir(new.dir)?);
        let (from, to) = (At { dir: from.as_fd(), name: old.name }, At { dir: to.as_fd(), name: new.name });
        let whiteout = match there {
            Entry::Whiteout => stat::stat_at(to.dir, to.name)?,
            _ => None,
        };
        let device = whiteout.is_some();
        let marked = matches!(there, Entry::Dir { .. }) && !list(open::open_dir(to.dir, to.name)?.as_fd())?.is_empty();
        match (is_dir && (device || marked), hide_old) {
            // The whiteout of the new name becomes that of the old one.
            (true, true) if device => upper.exchange(from, to)?,
            (true, _) => swap_and_take(upper, from, to, (marked, hide_old))?,
            (false, true) => upper.rename_leaving_whiteout(from, to)?,
            (false, false) => upper.rename(from, to)?,
        }
        if let Some(replaced) = whiteout.filter(|_| !(is_dir && hide_old)) {
            upper.work().marks().name_taken(&replaced);
        }
        if *there == Entry::Whiteout {
            logged("remove a whiteout", upper.remove_dot_whiteout(to.dir, to.name));
        }
        Ok(())
    }
}

/// Moves a directory over what rename(2) cannot replace, a device or a directory that holds marks: swaps the two, then takes
/// away what came to the old name, a directory or not, or swaps back.
fn swap_and_take(upper: &Upper, from: At<'_>, to: At<'_>, (is_dir, hide_old): (bool, bool)) -> Result<()> {
    upper.exchange(from, to)?;
    let taken = match hide_old {
        true => upper.replace_by_whiteout(from.dir, from.name, is_dir),
        false => upper.remove(from.dir, from.name),
    };
    if taken.is_err() {
        upper.exchange(from, to)?;
    }
    taken
}

/// The inode of a name that may be moved: none has a part in a lower layer that would have to be moved along.
fn movable(inode: Option<Arc<Inode>>) -> Result<Arc<Inode>> {
    match inode {
        None => Err(Error::NotFound),
        Some(inode) if inode.is_dir() && !inode.lower_parts().is_empty() => Err(Error::CrossLayer),
        Some(inode) => Ok(inode),
    }
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
