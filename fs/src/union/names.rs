//! Which layers say anything of a name: the merged directory.
//!
//! Owns two tables of a directory. `LowerNames` lists the lower layers once, so that a lookup asks only those that answer,
//! and none for a name that does not exist. `UpperNames` says which names the upper layer may have. Must not know what the
//! answers mean: the layers are still asked, and `merge` decides. Invariants: a layer that is left out would have said
//! `Absent`, or would not have been asked; tables hold `NAMES_MAX` names in all.

use super::Union;
use super::inode::{Inode, Kind};
use super::usage::Changing;
use crate::error::Result;
use crate::layer::{Layer, LayerId, LayerName, list};
use crate::sys::dir::DirEntry;
use crate::sys::stat;
use hashbrown::HashTable;
use parking_lot::Mutex;
use std::collections::{HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// Names that all tables of a mount hold together at the most: some 200 MiB. Past it the oldest table goes.
pub const NAMES_MAX: usize = 2_000_000;
/// Bytes of a directory file per name, of the filesystems that we lie on; to guess what listing would cost.
const BYTES_PER_NAME: u64 = 32;
/// System calls by which one layer is asked for a name that it does not have.
const CALLS_PER_ASKING: u64 = 2;
/// System calls by which one layer's directory is opened, read and closed.
const CALLS_PER_LISTING: u64 = 4;
/// Names that are listed in the time of one system call.
const NAMES_PER_CALL: u64 = 8;
/// A table that grows counts for the limit from here on.
const GROWN_MIN: usize = 4096;

/// Whether the lookups so far have cost what listing would have: then the next ones are bought by it, and however the
/// lookups go on, no more than twice the least is paid.
fn listing_pays(asked: u64, layers: u64, names: u64) -> bool {
    asked * layers * CALLS_PER_ASKING >= layers * CALLS_PER_LISTING + names / NAMES_PER_CALL
}

/// A name of the lower layers.
#[derive(Debug)]
pub struct LowerName {
    /// The name.
    pub name: Box<OsStr>,
    /// Its kind on the topmost layer that has it.
    pub kind: Kind,
    /// Its inode number there.
    pub ino: u64,
    /// The layers to ask, topmost first: one, unless directories may merge.
    layers: Layers,
}

#[derive(Debug)]
enum Layers {
    One(LayerId),
    Many(Vec<LayerId>),
}

impl LowerName {
    /// The layers to ask, topmost first; never empty.
    pub fn layers(&self) -> &[LayerId] {
        match &self.layers {
            Layers::One(layer) => std::slice::from_ref(layer),
            Layers::Many(layers) => layers,
        }
    }
}

/// The names that the lower layers of one directory show, each once.
pub struct LowerNames {
    names: Vec<LowerName>,
    places: HashTable<u32>,
    hasher: RandomState,
}

impl LowerNames {
    /// The name, where a lower layer shows it.
    pub fn find(&self, name: &OsStr) -> Option<&LowerName> {
        let hash = self.hasher.hash_one(name);
        let place = self.places.find(hash, |place| &*self.names[*place as usize].name == name)?;
        Some(&self.names[*place as usize])
    }

    /// Every name, topmost layer first.
    pub fn iter(&self) -> impl Iterator<Item = &LowerName> {
        self.names.iter()
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }
}

/// Lists layers, topmost first, into one table.
struct Merger {
    names: Vec<LowerName>,
    places: HashTable<u32>,
    hasher: RandomState,
    /// Names that a layer above hides from the next ones, or that end there.
    settled: HashSet<OsString>,
}

impl Merger {
    fn add(&mut self, layer: LayerId, entry: DirEntry, kind: Kind, settles: &mut Vec<OsString>) {
        if self.settled.contains(&entry.name) {
            return;
        }
        let hash = self.hasher.hash_one(&*entry.name);
        let is_dir = kind == Kind::Directory;
        if !is_dir {
            settles.push(entry.name.clone());
        }
        let found = self.places.find(hash, |place| *self.names[*place as usize].name == *entry.name);
        match found {
            // A file below a directory of the same name ends the merging: it is settled, and not shown.
            Some(_) if !is_dir => {}
            Some(place) => {
                let known = &mut self.names[*place as usize];
                match &mut known.layers {
                    Layers::One(first) => known.layers = Layers::Many(vec![*first, layer]),
                    Layers::Many(layers) => layers.push(layer),
                }
            }
            None => {
                let place = self.names.len() as u32;
                let name = entry.name.into_boxed_os_str();
                self.names.push(LowerName { name, kind, ino: entry.ino, layers: Layers::One(layer) });
                let (names, hasher) = (&self.names, &self.hasher);
                self.places.insert_unique(hash, place, |place| hasher.hash_one(&*names[*place as usize].name));
            }
        }
    }
}

/// What one layer lists: names with their kinds, and the names that it hides from the layers below.
pub(super) struct LayerListing {
    pub(super) shown: Vec<(DirEntry, Kind)>,
    pub(super) hidden: Vec<OsString>,
}

impl Union {
    /// Lists one layer's part of a directory.
    pub(super) fn list_layer(&self, dir: &Arc<Inode>, id: LayerId) -> Result<LayerListing> {
        let layer = self.stack.layer(id)?;
        let fd = self.dir_fd(dir, id)?;
        let xattr_whiteouts = self.marks_on(dir, id).xattr_whiteouts;
        let mut listing = LayerListing { shown: Vec::new(), hidden: Vec::new() };
        for entry in list(fd.as_fd())? {
            match LayerName::parse(&entry.name) {
                LayerName::Plain(_) => match kind_of(layer, fd.as_fd(), &entry, xattr_whiteouts)? {
                    None => listing.hidden.push(entry.name),
                    Some(kind) => listing.shown.push((entry, kind)),
                },
                LayerName::Whiteout(name) => listing.hidden.push(name.to_owned()),
                LayerName::Opaque | LayerName::Bookkeeping => {}
            }
        }
        Ok(listing)
    }

    /// The table of a directory's lower layers, where it is worth having by now.
    pub(super) fn lower_names(&self, dir: &Arc<Inode>) -> Result<Option<Arc<LowerNames>>> {
        if let Some(names) = &*dir.known_names().lower.read() {
            return Ok(Some(names.clone()));
        }
        let names: u64 = dir.lower_parts().iter().map(|part| part.stat.size / BYTES_PER_NAME).sum();
        match listing_pays(dir.asked(), dir.lower_parts().len() as u64, names) {
            true => self.merge_lower_names(dir).map(Some),
            false => Ok(None),
        }
    }

    /// The table of a directory's lower layers.
    pub(super) fn merge_lower_names(&self, dir: &Arc<Inode>) -> Result<Arc<LowerNames>> {
        if let Some(names) = &*dir.known_names().lower.read() {
            return Ok(names.clone());
        }
        let mut merger =
            Merger { names: Vec::new(), places: HashTable::new(), hasher: RandomState::new(), settled: HashSet::new() };
        for part in dir.lower_parts() {
            let listing = self.list_layer(dir, part.layer)?;
            // What a layer hides or ends counts for the layers below it only.
            let mut settles = listing.hidden;
            for (entry, kind) in listing.shown {
                merger.add(part.layer, entry, kind, &mut settles);
            }
            merger.settled.extend(settles);
        }
        let Merger { names, places, hasher, .. } = merger;
        let names = Arc::new(LowerNames { names, places, hasher });
        *dir.known_names().lower.write() = Some(names.clone());
        self.tables.added(dir, names.len());
        Ok(names)
    }

    /// Whether the upper layer may say anything of a name.
    pub(super) fn may_be_upper(&self, dir: &Arc<Inode>, name: &OsStr) -> Result<bool> {
        if let Some(names) = &*dir.known_names().upper.read() {
            return Ok(names.contains(name));
        }
        let guess = dir.state.read().upper_size / BYTES_PER_NAME;
        if !listing_pays(dir.asked(), 1, guess) {
            return Ok(true);
        }
        let listing = self.list_layer(dir, LayerId::UPPER)?;
        let shown = listing.shown.into_iter().map(|(entry, _)| entry.name);
        let names: HashSet<OsString> = shown.chain(listing.hidden).collect();
        let answer = names.contains(name);
        self.tables.added(dir, names.len());
        *dir.known_names().upper.write() = Some(names);
        Ok(answer)
    }

    /// The upper layer is about to say something of a name. The caller holds the directory's `children` for writing.
    #[must_use = "it is to be kept over the change"]
    pub(super) fn touch<'a>(&'a self, dir: &'a Arc<Inode>, name: &OsStr) -> Changing<'a> {
        let changing = self.changing(dir);
        dir.state.write().names_mtime = None;
        let grown = {
            let mut names = dir.known_names().upper.write();
            let Some(names) = names.as_mut() else { return changing };
            match names.insert(name.to_owned()) {
                true => names.len(),
                false => return changing,
            }
        };
        // Counted when it doubles: the first names are not worth it.
        if grown >= GROWN_MIN && grown.is_power_of_two() {
            self.tables.added(dir, grown / 2);
        }
        changing
    }
}

/// The kind of a listed name; `None` where it is a whiteout.
fn kind_of(layer: &Layer, dir: BorrowedFd<'_>, entry: &DirEntry, xattr_whiteouts: bool) -> Result<Option<Kind>> {
    let plain_regular = entry.format == Some(libc::S_IFREG);
    if plain_regular && xattr_whiteouts && layer.is_xattr_whiteout_at(dir, &entry.name)? {
        return Ok(None);
    }
    match entry.format {
        Some(format) if format != libc::S_IFCHR && !(plain_regular && layer.is_overridden()) => {
            Ok(Some(Kind::from_mode(format)))
        }
        _ => match stat::stat_at(dir, &entry.name)? {
            Some(found) if found.is_whiteout_device() => Ok(None),
            Some(_) => Ok(layer.stat_at(dir, &entry.name)?.map(|found| Kind::from_mode(found.mode))),
            // Gone since it was listed.
            None => Ok(None),
        },
    }
}

/// The tables of a mount, oldest first, and how many names they hold.
#[derive(Default)]
pub struct Tables {
    held: AtomicUsize,
    oldest: Mutex<VecDeque<(Weak<Inode>, usize)>>,
}

impl Tables {
    /// Counts a new table; drops the oldest ones while all hold too much.
    fn added(&self, dir: &Arc<Inode>, names: usize) {
        let mut held = self.held.fetch_add(names, Ordering::Relaxed) + names;
        let mut oldest = self.oldest.lock();
        oldest.push_back((Arc::downgrade(dir), names));
        // A directory that the kernel forgot took its tables along.
        while let Some((dir, names)) = oldest.front() {
            let alive = dir.upgrade();
            if alive.is_some() && held <= NAMES_MAX {
                break;
            }
            held = self.held.fetch_sub(*names, Ordering::Relaxed) - *names;
            oldest.pop_front();
            if let Some(dir) = alive {
                *dir.known_names().lower.write() = None;
                *dir.known_names().upper.write() = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, ino: u64) -> DirEntry {
        DirEntry { name: name.into(), ino, format: None }
    }

    fn merge(layers: &[&[(&str, Kind)]]) -> LowerNames {
        let mut merger =
            Merger { names: Vec::new(), places: HashTable::new(), hasher: RandomState::new(), settled: HashSet::new() };
        for (position, layer) in layers.iter().enumerate() {
            let mut settles = Vec::new();
            for (name, kind) in *layer {
                match name.strip_prefix('-') {
                    Some(hidden) => settles.push(hidden.into()),
                    None => merger.add(LayerId(position as u16 + 1), entry(name, 7), *kind, &mut settles),
                }
            }
            merger.settled.extend(settles);
        }
        LowerNames { names: merger.names, places: merger.places, hasher: merger.hasher }
    }

    fn asked(names: &LowerNames, name: &str) -> Vec<u16> {
        names.find(OsStr::new(name)).map(|found| found.layers().iter().map(|id| id.0).collect()).unwrap_or_default()
    }

    #[test]
    fn only_layers_that_answer_are_asked() {
        use Kind::{Directory as D, Regular as F};
        let names = merge(&[&[("a", F), ("d", D)], &[("a", F), ("d", D), ("-b", F)], &[("b", F), ("d", D), ("c", F)]]);
        assert_eq!(asked(&names, "a"), [1]);
        assert_eq!(asked(&names, "b"), []);
        assert_eq!(asked(&names, "c"), [3]);
        assert_eq!(asked(&names, "d"), [1, 2, 3]);
        assert_eq!(asked(&names, "x"), []);
        assert_eq!(names.len(), 3);
    }

    #[test]
    fn a_file_ends_the_merging_of_directories() {
        use Kind::{Directory as D, Regular as F};
        let names = merge(&[&[("d", D)], &[("d", F)], &[("d", D)]]);
        assert_eq!(asked(&names, "d"), [1]);
    }

    #[test]
    fn a_whiteout_beside_a_directory_makes_it_the_last() {
        use Kind::Directory as D;
        let names = merge(&[&[("d", D), ("-d", D)], &[("d", D)]]);
        assert_eq!(asked(&names, "d"), [1]);
    }

    #[test]
    fn the_oldest_table_goes_when_all_hold_too_much() {
        use crate::union::inode::{Below, InodeNumber, State};
        let dir = |number| {
            let dir = Inode::new(InodeNumber(number), Kind::Directory, Below::Nothing, None, State::default());
            *dir.known_names().upper.write() = Some(HashSet::new());
            Arc::new(dir)
        };
        let dirs = [dir(2), dir(3), dir(4)];
        let tables = Tables::default();
        dirs.iter().for_each(|dir| tables.added(dir, NAMES_MAX / 2));
        let known = dirs.each_ref().map(|dir| dir.known_names().upper.read().is_some());
        assert_eq!(known, [false, true, true]);
    }
}
