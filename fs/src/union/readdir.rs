//! Listing a merged directory.
//!
//! Owns the listings that are being read. An open directory needs nothing of its own here: a position says by itself what
//! comes after it, see `position`, so a listing can be dropped and taken anew at any time. Invariant: what stays in a directory
//! from the first piece to the last is shown once, in whatever pieces it is read.

use super::Union;
use super::inode::{Inode, InodeNumber, Kind};
use super::merge::Visible;
use super::position::Place;
use crate::error::Result;
use crate::layer::LayerId;
use lru::LruCache;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

/// Names of all listings that are kept for whoever reads on, at the most, and one listing more: some 100 MiB.
const KEPT_NAMES_MAX: usize = 1_000_000;

/// One name of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedEntry {
    /// The name.
    pub name: Box<OsStr>,
    /// The inode number that stat(2) shows for it.
    pub st_ino: u64,
    /// Its kind.
    pub kind: Kind,
    /// The position behind it.
    pub next: u64,
    place: Place,
}

/// A directory's names at one moment, `.` and `..` first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// The names.
    pub entries: Vec<ListedEntry>,
}

impl Listing {
    /// Orders names.
    fn new(mut entries: Vec<ListedEntry>) -> Self {
        entries.sort_unstable_by_key(|entry| entry.place);
        for at in 0..entries.len() {
            let place = entries[at].place;
            let near = [at.checked_sub(1), Some(at + 1)].into_iter().flatten().filter_map(|near| entries.get(near));
            let crowded = near.into_iter().any(|near| near.place.crowds(place));
            entries[at].next = place.behind(crowded);
        }
        Listing { entries }
    }

    /// The names after a position; 0 is the start.
    pub fn after(&self, position: u64) -> &[ListedEntry] {
        let start = self.entries.partition_point(|entry| !entry.place.is_after(position));
        &self.entries[start..]
    }
}

/// Listings that somebody has not read to the end, the least recently used first to go.
pub(super) struct Listings {
    kept: LruCache<InodeNumber, Arc<Listing>>,
    names: usize,
}

impl Default for Listings {
    fn default() -> Self {
        Listings { kept: LruCache::unbounded(), names: 0 }
    }
}

impl Listings {
    fn keep(&mut self, dir: InodeNumber, listing: Arc<Listing>) {
        self.names += listing.entries.len();
        if let Some((_, before)) = self.kept.push(dir, listing) {
            self.names -= before.entries.len();
        }
        while self.names > KEPT_NAMES_MAX && self.kept.len() > 1 {
            let Some((_, oldest)) = self.kept.pop_lru() else { break };
            self.names -= oldest.entries.len();
        }
    }

    /// Nobody reads on.
    pub(super) fn forget(&mut self, dir: InodeNumber) {
        if let Some(gone) = self.kept.pop(&dir) {
            self.names -= gone.entries.len();
        }
    }
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
    /// Opens a directory; whether nobody else has it open.
    pub fn open_dir(&self, inode: InodeNumber) -> Result<bool> {
        Ok(self.dir(inode)?.opened() == 1)
    }

    /// Closes a directory.
    pub fn close_dir(&self, inode: InodeNumber) {
        if let Ok(dir) = self.inode(inode) {
            dir.closed();
        }
    }

    /// The names of a directory, for whoever is to read those after a position; at the start they are taken anew.
    pub fn read_dir(&self, inode: InodeNumber, position: u64) -> Result<Arc<Listing>> {
        let dir = self.dir(inode)?;
        let kept = match position {
            0 => None,
            _ => self.listings.lock().kept.get(&inode).cloned(),
        };
        let listing = match kept {
            Some(listing) => listing,
            None => {
                let fresh = Arc::new(self.with_room(|| self.list_dir(&dir))?);
                self.listings.lock().keep(inode, fresh.clone());
                fresh
            }
        };
        if listing.after(position).is_empty() {
            self.listings.lock().forget(inode);
        }
        Ok(listing)
    }

    fn list_dir(&self, dir: &Arc<Inode>) -> Result<Listing> {
        let _children = dir.children.read();
        let place = dir.state.read().place.clone();
        let parent = place.map(|place| place.parent.clone()).unwrap_or_else(|| dir.clone());
        let number = |dir: &Inode| if dir.number == InodeNumber::ROOT { self.root_ino } else { dir.number.0 };
        let dots = [(".", number(dir)), ("..", number(&parent))];
        let entry = |name: Box<OsStr>, st_ino, kind| {
            let place = self.order.place(&name);
            ListedEntry { name, st_ino, kind, next: 0, place }
        };
        let mut entries: Vec<ListedEntry> =
            dots.map(|(name, st_ino)| entry(OsStr::new(name).into(), st_ino, Kind::Directory)).into();
        for (name, named) in self.shown_names(dir)?.shown {
            let st_ino = self.named_number(dir, &name, &named)?;
            entries.push(entry(name, st_ino, named.kind));
        }
        Ok(Listing::new(entries))
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
