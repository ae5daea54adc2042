//! Listing a merged directory.
//!
//! Owns the snapshot that an open directory reads from. Invariant: an open directory shows what was there when it was opened
//! or rewound, each name once, whatever is created or removed meanwhile.

use super::Union;
use super::inode::{Inode, InodeNumber, Kind};
use super::merge::Visible;
use crate::error::{Error, Result};
use crate::layer::{Layer, LayerId, LayerName, list};
use crate::sys::dir::DirEntry;
use crate::sys::stat;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
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
    /// Directories of further layers may merge with it.
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
        let fresh = Arc::new(self.list_dir(&open.dir)?);
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
        for (name, named) in self.shown_names(dir)?.0 {
            let st_ino = self.named_number(dir, &name, &named)?;
            entries.push(ListedEntry { name: name.into(), st_ino, kind: named.kind });
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
        let mut shown: HashMap<OsString, Named> = HashMap::new();
        let mut hidden: HashSet<OsString> = HashSet::new();
        let upper = dir.in_upper().then_some(LayerId::UPPER);
        if dir.is_removed() {
            return Ok(Names(shown));
        }
        for id in upper.into_iter().chain(dir.lower_parts().iter().map(|part| part.layer)) {
            let layer = self.stack.layer(id)?;
            let fd = self.dir_fd(dir, id)?;
            let xattr_whiteouts = self.marks_on(dir, id).xattr_whiteouts;
            let mut hides = Vec::new();
            for entry in list(fd.as_fd())? {
                let plain = match LayerName::parse(&entry.name) {
                    LayerName::Plain(name) => name,
                    LayerName::Whiteout(name) => {
                        hides.push(name.to_owned());
                        continue;
                    }
                    LayerName::Opaque | LayerName::Bookkeeping => continue,
                };
                match kind_of(layer, fd.as_fd(), &entry, xattr_whiteouts)? {
                    None => hides.push(plain.to_owned()),
                    Some(kind) => note(&mut shown, &hidden, entry, kind, id),
                }
            }
            // Whiteouts hide the layers below their own only.
            hidden.extend(hides);
        }
        Ok(Names(shown))
    }
}

fn note(shown: &mut HashMap<OsString, Named>, hidden: &HashSet<OsString>, entry: DirEntry, kind: Kind, on: LayerId) {
    if hidden.contains(&entry.name) {
        return;
    }
    match shown.get_mut(&entry.name) {
        Some(above) => above.merged |= above.kind == Kind::Directory && kind == Kind::Directory,
        None => {
            shown.insert(entry.name, Named { on, ino: entry.ino, kind, merged: false });
        }
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

/// The names of a directory, in no order.
pub(super) struct Names(HashMap<OsString, Named>);

impl Names {
    /// Whether the directory shows nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
