//! From a name in a directory to an inode.
//!
//! Owns asking the layers and recognising the file that answers. Must not know the rules of merging. Invariant: one backing
//! file is one inode while it is alive, whichever of its names was looked up.

use super::inode::{Below, Identity, Inode, InodeNumber, Kind, Place, State, UpperFile};
use super::links::{Linked, key_of};
use super::merge::{DirPart, Seen, Visible, resolve};
use super::{Attributes, Union};
use crate::error::{Error, Result};
use crate::layer::{DirMarks, Entry, LayerId, is_reserved};
use crate::sys::stat::Stat;
use crate::sys::{open, stat};
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::sync::Arc;

/// Bytes of the longest name (`NAME_MAX`).
pub const NAME_BYTES_MAX: usize = 255;

impl Union {
    /// Looks a name up; counts a lookup where it exists.
    pub fn lookup(&self, parent: InodeNumber, name: &OsStr) -> Result<Option<Attributes>> {
        let dir = self.dir(parent)?;
        if name.len() > NAME_BYTES_MAX {
            return Err(Error::NameTooLong);
        }
        let _children = dir.children.read();
        let found = self.with_room(|| self.child_with(&dir, name, 1))?;
        let Some((inode, stat)) = found else { return Ok(None) };
        self.attributes_of(&inode, stat).map(Some)
    }

    /// The inode of a name. The caller holds the directory's `children`.
    pub(super) fn child(&self, dir: &Arc<Inode>, name: &OsStr) -> Result<Option<Arc<Inode>>> {
        Ok(self.child_with(dir, name, 0)?.map(|(inode, _)| inode))
    }

    fn child_with(&self, dir: &Arc<Inode>, name: &OsStr, lookups: u64) -> Result<Option<(Arc<Inode>, Option<Stat>)>> {
        if is_reserved(name) || dir.is_removed() {
            return Ok(None);
        }
        let visible = self.probe(dir, name)?;
        self.shown(dir, name, visible, lookups)
    }

    fn shown(
        &self,
        dir: &Arc<Inode>,
        name: &OsStr,
        visible: Visible,
        lookups: u64,
    ) -> Result<Option<(Arc<Inode>, Option<Stat>)>> {
        match visible {
            Visible::Nothing => Ok(None),
            Visible::Leaf { on, stat } => self.leaf(dir, name, on, stat, lookups).map(Some),
            Visible::Dir(parts) => {
                let stat = parts[0].stat;
                Ok(Some((self.merged(dir, name, parts, lookups), Some(stat))))
            }
        }
    }

    /// What the upper layer and the lower ones have under a name, and the inode that it shows. The caller holds the directory's
    /// `children`.
    pub(super) fn seen(&self, dir: &Arc<Inode>, name: &OsStr) -> Result<(Seen, Option<Arc<Inode>>)> {
        if is_reserved(name) || dir.is_removed() {
            return Ok((Seen { upper: Entry::Absent, below: Visible::Nothing }, None));
        }
        let seen = Seen { upper: self.probe_upper(dir, name)?, below: self.probe_below(dir, name)? };
        let inode = self.shown(dir, name, seen.visible(), 0)?.map(|(inode, _)| inode);
        Ok((seen, inode))
    }

    /// What the union shows of a name.
    pub(super) fn probe(&self, dir: &Arc<Inode>, name: &OsStr) -> Result<Visible> {
        let upper = match dir.in_upper() && self.may_be_upper(dir, name)? {
            true => Some(LayerId::UPPER),
            false => None,
        };
        self.resolve_below(dir, upper, name)
    }

    /// What the lower layers alone show of a name.
    pub(super) fn probe_below(&self, dir: &Arc<Inode>, name: &OsStr) -> Result<Visible> {
        self.resolve_below(dir, None, name)
    }

    /// Asks a layer, if one is given, and then the lower layers that can have an answer.
    fn resolve_below(&self, dir: &Arc<Inode>, first: Option<LayerId>, name: &OsStr) -> Result<Visible> {
        if let Some(below) = self.index_entries(dir, name)? {
            return resolve(first.map(|layer| self.ask(dir, layer, name)).into_iter().chain(below.map(Ok)));
        }
        let names = match dir.lower_parts().is_empty() {
            true => None,
            false => self.lower_names(dir)?,
        };
        match names {
            Some(names) => {
                let layers = names.find(name).map(|found| found.layers()).unwrap_or_default();
                resolve(first.into_iter().chain(layers.iter().copied()).map(|layer| self.ask(dir, layer, name)))
            }
            None => self.resolve_by_asking(dir, first, name),
        }
    }

    /// Asks every layer that could have an answer. A name that the lower layers do not have is remembered until the next such
    /// one: a CREATE follows the LOOKUP of its name.
    fn resolve_by_asking(&self, dir: &Arc<Inode>, first: Option<LayerId>, name: &OsStr) -> Result<Visible> {
        dir.ask();
        let lowers = || dir.lower_parts().iter().map(|part| self.ask(dir, part.layer, name));
        if let Some(upper) = first {
            let answer = self.ask(dir, upper, name)?;
            if answer.1 != Entry::Absent {
                return resolve(std::iter::once(Ok(answer)).chain(lowers()));
            }
        }
        if dir.lower_parts().is_empty() || dir.is_missing_below(name) {
            return Ok(Visible::Nothing);
        }
        let below = resolve(lowers())?;
        if below == Visible::Nothing {
            dir.note_missing_below(name);
        }
        Ok(below)
    }

    /// What the upper layer alone says of a name.
    pub(super) fn probe_upper(&self, dir: &Arc<Inode>, name: &OsStr) -> Result<Entry> {
        match dir.in_upper() && self.may_be_upper(dir, name)? {
            true => self.ask(dir, LayerId::UPPER, name).map(|(_, entry)| entry),
            false => Ok(Entry::Absent),
        }
    }

    fn ask(&self, dir: &Arc<Inode>, layer: LayerId, name: &OsStr) -> Result<(LayerId, Entry)> {
        let fd = self.dir_fd(dir, layer)?;
        let entry = self.stack.layer(layer)?.entry(fd.as_fd(), self.marks_on(dir, layer), name)?;
        Ok((layer, entry))
    }

    /// The marks of one layer's part of a directory.
    pub(super) fn marks_on(&self, dir: &Inode, layer: LayerId) -> DirMarks {
        match layer {
            LayerId::UPPER => dir.state.read().upper_marks,
            _ => dir.lower_parts().iter().find(|part| part.layer == layer).map(|part| part.marks).unwrap_or_default(),
        }
    }

    /// The inode of a merged directory.
    fn merged(&self, dir: &Arc<Inode>, name: &OsStr, parts: Vec<DirPart>, lookups: u64) -> Arc<Inode> {
        let upper = parts.first().filter(|part| part.layer == LayerId::UPPER).copied();
        // The topmost lower directory names it, so that its number stays when the upper layer gets a part.
        let basis = parts.iter().find(|part| part.layer != LayerId::UPPER).copied().unwrap_or(parts[0]);
        let identity = Identity { layer: basis.layer, dev: basis.stat.dev, ino: basis.stat.ino };
        let number = |attempt| self.numbering.number(identity.dev, identity.ino, attempt);
        self.table.intern(identity, lookups, number, |number| {
            let lower: Vec<DirPart> = parts.into_iter().filter(|part| part.layer != LayerId::UPPER).collect();
            let place = Arc::new(Place { parent: dir.clone(), name: name.into() });
            let state = State {
                upper: upper.map(|part| UpperFile { dev: part.stat.dev, ino: part.stat.ino }),
                upper_marks: upper.map(|part| part.marks).unwrap_or_default(),
                upper_size: upper.map(|part| part.stat.size).unwrap_or_default(),
                place: Some(place.clone()),
                ..State::default()
            };
            let (below, home) = match lower.is_empty() {
                true => (Below::Nothing, None),
                false => (Below::Dir(lower.into_boxed_slice()), Some(place)),
            };
            let node = if home.is_some() { self.index_child(dir, name) } else { None };
            Inode::new(number, Kind::Directory, below, home, state)
                .indexed_at(node)
                .counted_as(upper.as_ref().map(|part| &part.stat))
        })
    }

    /// The number that a file of the upper layer brought along.
    fn stored_number(&self, dir: &Arc<Inode>, name: &OsStr, found: &Stat) -> Result<Option<u64>> {
        let (Some(origins), Some(upper)) = (&self.origins, &self.stack.upper) else { return Ok(None) };
        let parent = self.upper_dir(dir)?;
        let fd = self.with_room(|| open::open_path(parent.as_fd(), name))?;
        origins.read(upper, fd.as_fd(), found)
    }

    /// The number to try for a file: a stored one first, then what its backing file says.
    fn number_of(&self, stored: Option<u64>, found: &Stat, attempt: u32) -> u64 {
        match (stored, attempt) {
            (Some(stored), 0) => stored,
            (Some(_), attempt) => self.numbering.number(found.dev, found.ino, attempt - 1),
            (None, attempt) => self.numbering.number(found.dev, found.ino, attempt),
        }
    }

    /// The inode of a file that `on` shows; its attributes where they are those just read.
    fn leaf(
        &self,
        dir: &Arc<Inode>,
        name: &OsStr,
        on: LayerId,
        found: Stat,
        lookups: u64,
    ) -> Result<(Arc<Inode>, Option<Stat>)> {
        if on == LayerId::UPPER {
            return Ok((self.upper_leaf(dir, name, found, lookups)?, Some(found)));
        }
        let identity = Identity { layer: on, dev: found.dev, ino: found.ino };
        let mut state = State::default();
        if found.nlink > 1 && self.table.find(identity).is_none() && !self.links.is_empty() {
            let parent = self.dir_fd(dir, on)?;
            let (key, _) = self.link_key(on, parent.as_fd(), name, &found)?;
            match self.links.get(&key) {
                Some(Linked::CopiedUp) => {
                    return self.indexed(key, identity, found.nlink, lookups).map(|inode| (inode, None));
                }
                Some(Linked::Hidden(count)) => state.nlink_delta = -i32::try_from(count).unwrap_or(i32::MAX),
                None => {}
            }
            state.link_key = Some(key);
        }
        let kind = Kind::from_mode(found.mode);
        let number = |attempt| self.numbering.number(found.dev, found.ino, attempt);
        let inode = self.table.intern(identity, lookups, number, |number| {
            let place = Arc::new(Place { parent: dir.clone(), name: name.into() });
            state.place = Some(place.clone());
            Inode::new(number, kind, Below::Leaf { identity, nlink: found.nlink, size: found.size }, Some(place), state)
                .indexed_at(self.index_child(dir, name))
        });
        // A hard link whose file was copied up under another name shows the copy's attributes.
        let current = !inode.in_upper();
        Ok((inode, current.then_some(found)))
    }

    /// The key of a lower file in the hard link index.
    pub(super) fn link_key(
        &self,
        layer: LayerId,
        dir: std::os::fd::BorrowedFd<'_>,
        name: &OsStr,
        found: &Stat,
    ) -> Result<(Arc<str>, Option<Vec<u8>>)> {
        let depth = self.stack.layers().count() - usize::from(layer.0);
        key_of(self.stack.layer(layer)?, dir, name, found, depth)
    }

    /// The inode of a lower file that an earlier mount copied up under another of its names.
    fn indexed(&self, key: Arc<str>, lower: Identity, lower_nlink: u32, lookups: u64) -> Result<Arc<Inode>> {
        let upper = self.stack.upper()?;
        let fd = self.links.open(upper.work(), &key)?;
        let found = upper.layer().stat_fd(fd.as_fd())?;
        let identity = Identity { layer: LayerId::UPPER, dev: found.dev, ino: found.ino };
        let delta = self.links.stored_nlink(upper, fd.as_fd(), &key, found.nlink, Some(lower_nlink))?;
        let stored =
            self.origins.as_ref().map(|origins| origins.read(upper, fd.as_fd(), &found)).transpose()?.flatten();
        let number = |attempt| match (attempt, stored) {
            (0, Some(stored)) => stored,
            _ => self.numbering.number(lower.dev, lower.ino, attempt),
        };
        let inode = self.table.intern(identity, lookups, number, |number| {
            let state = State {
                upper: Some(UpperFile { dev: found.dev, ino: found.ino }),
                pin: Some(Arc::new(fd)),
                nlink_delta: delta.unwrap_or(-1),
                link_key: Some(key),
                ..State::default()
            };
            // The entry in the index is one of its names.
            let named = Some(&found).filter(|found| found.nlink > 1);
            Inode::new(number, Kind::from_mode(found.mode), Below::Nothing, None, state).counted_as(named)
        });
        self.table.add_identity(&inode, lower);
        Ok(inode)
    }

    /// The inode of a file of the upper layer.
    pub(super) fn upper_leaf(&self, dir: &Arc<Inode>, name: &OsStr, found: Stat, lookups: u64) -> Result<Arc<Inode>> {
        let identity = Identity { layer: LayerId::UPPER, dev: found.dev, ino: found.ino };
        let place = || Some(Arc::new(Place { parent: dir.clone(), name: name.into() }));
        let known = self.table.find(identity);
        if let Some(known) = &known {
            let nameless = |state: &State| state.place.is_none() && !state.removed;
            if nameless(&known.state.read()) {
                let mut state = known.state.write();
                if nameless(&state) {
                    state.place = place();
                    state.pin = None;
                }
            }
        }
        // Reading marks costs three calls: only on first sight.
        let (stored, mut state) = match known {
            Some(_) => (None, State::default()),
            None => self.upper_marks(dir, name, &found)?,
        };
        let number = |attempt| self.number_of(stored, &found, attempt);
        let kind = Kind::from_mode(found.mode);
        Ok(self.table.intern(identity, lookups, number, |number| {
            state.upper = Some(UpperFile { dev: found.dev, ino: found.ino });
            state.place = place();
            Inode::new(number, kind, Below::Nothing, None, state).counted_as(Some(&found))
        }))
    }

    /// What the marks of a file of the upper layer say: its stored number, and its share in the hard link index.
    fn upper_marks(&self, dir: &Arc<Inode>, name: &OsStr, found: &Stat) -> Result<(Option<u64>, State)> {
        let (upper, mut state) = (self.stack.upper()?, State::default());
        let Some(origins) = &self.origins else { return Ok((None, state)) };
        let parent = self.upper_dir(dir)?;
        let fd = self.with_room(|| open::open_path(parent.as_fd(), name))?;
        let stored = origins.read(upper, fd.as_fd(), found)?;
        if found.nlink > 1
            && let Some(key) = self.links.key_of_copy(found.ino)
        {
            let delta = self.links.stored_nlink(upper, fd.as_fd(), &key, found.nlink, None)?;
            // Without a count, the entry in the index is all that is known not to be a name.
            state.nlink_delta = delta.unwrap_or(-1);
            state.link_key = Some(key);
        }
        Ok((stored, state))
    }

    /// The inode number that a listing shows for a file of a layer, without making an inode of it.
    pub(super) fn listed_number(&self, dir: &Arc<Inode>, layer: LayerId, name: &OsStr, ino: u64) -> Result<u64> {
        let dev = self.stack.layer(layer)?.dev();
        let identity = Identity { layer, dev, ino };
        if let Some(known) = self.table.find(identity) {
            return Ok(known.number.0);
        }
        if layer != LayerId::UPPER {
            return Ok(self.numbering.number(dev, ino, 0));
        }
        let fd = self.upper_dir(dir)?;
        let Some(found) = stat::stat_at(fd.as_fd(), name)? else { return Ok(ino) };
        Ok(self.number_of(self.stored_number(dir, name, &found)?, &found, 0))
    }
}

#[cfg(test)]
mod tests;
