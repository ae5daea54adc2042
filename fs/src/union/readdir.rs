//! Listing a merged directory.
//!
//! Owns the snapshot that an open directory reads from. Invariant: an open directory shows what was there when it was opened
//! or rewound, each name once, whatever is created or removed meanwhile.

use super::Union;
use super::inode::{Inode, InodeNumber, Kind};
use super::merge::Visible;
use crate::error::{Error, Result};
use crate::layer::LayerId;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// One name of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedEntry {
    /// The name.
    pub name: Box<OsStr>,
    /// The inode number that stat(2) shows for it.
    pub st_ino: u64,
    /// Its kind.
    pub kind: Kind,
}

/// A directory's names at one moment, `.` and `..` first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// The names.
    pub entries: Vec<ListedEntry>,
}

/// An open directory.
pub(super) struct OpenDir {
    dir: Arc<Inode>,
    listing: Mutex<Option<Arc<Listing>>>,
}

/// What one layer adds to a listing.
struct Named {
    on: LayerId,
    ino: u64,
    kind: Kind,
    /// It is a directory of the upper layer, and a lower one may merge with it.
    merged: bool,
}

impl Union {
    /// Opens a directory; returns its handle.
    pub fn open_dir(&self, inode: InodeNumber) -> Result<u64> {
        let dir = self.dir(inode)?;
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.open_dirs.insert(handle, Arc::new(OpenDir { dir, listing: Mutex::new(None) }));
        Ok(handle)
    }

    /// The names of an open directory; `restart` takes them anew.
    pub fn read_dir(&self, handle: u64, restart: bool) -> Result<Arc<Listing>> {
        let open = self.open_dirs.get(&handle).map(|open| open.clone()).ok_or(Error::NoSuchInode)?;
        let mut listing = open.listing.lock();
        if let Some(taken) = listing.as_ref().filter(|_| !restart) {
            return Ok(taken.clone());
        }
        let fresh = Arc::new(self.with_room(|| self.list_dir(&open.dir))?);
        *listing = Some(fresh.clone());
        Ok(fresh)
    }

    /// Closes a directory.
    pub fn release_dir(&self, handle: u64) {
        self.open_dirs.remove(&handle);
    }

    fn list_dir(&self, dir: &Arc<Inode>) -> Result<Listing> {
        let _children = dir.children.read();
        let place = dir.state.read().place.clone();
        let parent = place.map(|place| place.parent.clone()).unwrap_or_else(|| dir.clone());
        let number = |dir: &Inode| if dir.number == InodeNumber::ROOT { self.root_ino } else { dir.number.0 };
        let dots = [(".", number(dir)), ("..", number(&parent))];
        let mut entries: Vec<ListedEntry> = dots
            .map(|(name, st_ino)| ListedEntry { name: OsStr::new(name).into(), st_ino, kind: Kind::Directory })
            .into();
        for (name, named) in self.shown_names(dir)?.shown {
            let st_ino = self.named_number(dir, &name, &named)?;
            entries.push(ListedEntry { name, st_ino, kind: named.kind });
        }
        Ok(Listing { entries })
    }

    fn named_number(&self, dir: &Arc<Inode>, name: &OsStr, named: &Named) -> Result<u64> {
        if !named.merged {
            return self.listed_number(dir, named.on, name, named.ino);
        }
        // Which lower directory gives the number depends on marks that only looking at each layer tells.
        match self.probe(dir, name)? {
            Visible::Dir(parts) => {
                let basis = parts.iter().find(|part| part.layer != LayerId::UPPER).unwrap_or(&parts[0]);
                self.listed_number(dir, basis.layer, name, basis.stat.ino)
            }
            _ => Ok(named.ino),
        }
    }

    /// Every name that a directory shows. The caller holds its `children`.
    pub(super) fn shown_names(&self, dir: &Arc<Inode>) -> Result<Names> {
        if dir.is_removed() {
            return Ok(Names::default());
        }
        let mut names = Names::default();
        let mut hidden: HashSet<OsString> = HashSet::new();
        if dir.in_upper() {
            let listing = self.list_layer(dir, LayerId::UPPER)?;
            hidden.extend(listing.hidden);
            for (entry, kind) in listing.shown {
                names.places.insert(entry.name.clone(), names.shown.len());
                let named = Named { on: LayerId::UPPER, ino: entry.ino, kind, merged: false };
                names.shown.push((entry.name.into_boxed_os_str(), named));
            }
        }
        if dir.lower_parts().is_empty() {
            return Ok(names);
        }
        if let Some((index, node)) = self.index_below(dir) {
            for (name, node) in index.entries(node) {
                let Some(lower) = index.node(node) else { continue };
                let kind = Kind::from_mode(lower.stat.mode);
                names.add_lower(&hidden, name, || Named { on: lower.layer, ino: lower.stat.ino, kind, merged: false });
            }
            return Ok(names);
        }
        for lower in self.merge_lower_names(dir)?.iter() {
            let on = lower.layers()[0];
            names.add_lower(&hidden, &lower.name, || Named { on, ino: lower.ino, kind: lower.kind, merged: false });
        }
        Ok(names)
    }
}

/// The names of a directory: those of the upper layer first.
#[derive(Default)]
pub(super) struct Names {
    shown: Vec<(Box<OsStr>, Named)>,
    /// Where the names of the upper layer stand.
    places: HashMap<OsString, usize>,
}

impl Names {
    /// Adds a name of the lower layers, unless the upper one hides it or has it.
    fn add_lower(&mut self, hidden: &HashSet<OsString>, name: &OsStr, lower: impl FnOnce() -> Named) {
        // A directory beside its own whiteout shows, and merges with nothing.
        if hidden.contains(name) {
            return;
        }
        match self.places.get(name) {
            Some(place) => {
                let above = &mut self.shown[*place].1;
                above.merged |= above.kind == Kind::Directory && lower().kind == Kind::Directory;
            }
            None => self.shown.push((name.into(), lower())),
        }
    }

    /// Whether the directory shows nothing.
    pub fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }
}
