//! An upper directory becomes a tar changeset (OCI image-spec, layer.md).
//!
//! Owns the order and the words of the archive. Must not know other layers: what a whiteout hides and what an opaque
//! directory covers is theirs to find out. Invariant: equal directories give equal bytes, so a layer that is written again
//! has the same DiffId; and applying the archive gives a directory that shows the same over every stack of lower layers.

mod error;
#[cfg(test)]
mod tests;

pub use error::DiffError;

use super::archive::{ArchiveWriter, Attributes, Entry as Member, Kind};
use super::lower::{DirMarks, Entry, Layer, LayerId};
use super::mountpoints::Mountpoints;
use super::override_stat::{OverrideStat, is_override_xattr, show_security};
use super::whiteout::{LayerName, OPAQUE_FILE, dot_name, is_private_xattr};
use super::work::list;
use crate::error::Result;
use crate::sys::stat::{Stat, Timestamp};
use crate::sys::{copy, open, xattr};
use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

/// Levels of directories that are written: no deeper changeset could be applied.
const DEPTH_MAX: usize = 256;
/// Bytes of a file that are in memory at once.
const DATA_BYTES: usize = 256 << 10;
/// Attributes in which a union keeps that the content is elsewhere: such a directory is no layer by itself.
const ELSEWHERE: [&[u8]; 2] = [b"overlay.redirect", b"overlay.metacopy"];
/// The label that this host gave, which means nothing on another.
const HOST_LABEL: &str = "security.selinux";

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Diffed {
    /// Entries of the archive, whiteouts included.
    pub entries: u64,
    /// Sockets, which no archive can hold.
    pub sockets_left_out: u64,
}

/// Writes the changeset of the directory `upper`, which nobody changes meanwhile, to `out`.
///
/// Whiteouts and opaque marks of every format become `.wh.` names; owners that are kept in an attribute become owners again, where `owners`
/// or the directory itself says that there are such; `mountpoints`, sockets, the bookkeeping of unions and the labels of this host are left out.
///
/// # Errors
/// A sentence that names the file.
pub fn diff(
    upper: BorrowedFd<'_>,
    owners: OverrideStat,
    mountpoints: &Mountpoints,
    out: impl Write,
) -> Result<Diffed, DiffError> {
    let fail = |error| DiffError::Read { path: "/".into(), error };
    let layer = open::reopen_dir(upper)
        .and_then(|root| Layer::new(LayerId::UPPER, root, owners != OverrideStat::Off))
        .map_err(fail)?;
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut differ = Differ {
        layer: &layer,
        mountpoints,
        archive: ArchiveWriter::new(out),
        links: HashMap::new(),
        path: Vec::new(),
        own,
        diffed: Diffed::default(),
    };
    let marks = layer.dir_marks(layer.root()).map_err(fail)?;
    let stat = layer.stat_fd(layer.root()).map_err(fail)?;
    differ.dir(layer.root(), &stat, marks)?;
    differ.archive.finish().map_err(|error| DiffError::Write { path: "/".into(), error })?;
    Ok(differ.diffed)
}

struct Differ<'a, W> {
    layer: &'a Layer,
    mountpoints: &'a Mountpoints,
    archive: ArchiveWriter<W>,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
    path: Vec<OsString>,
    /// The user who has kept the owners in attributes.
    own: (u32, u32),
    diffed: Diffed,
}

impl<W: Write> Differ<'_, W> {
    fn dir(&mut self, dir: BorrowedFd<'_>, stat: &Stat, marks: DirMarks) -> Result<(), DiffError> {
        if self.path.len() > DEPTH_MAX {
            return Err(DiffError::TooDeep { path: self.shown(), max: DEPTH_MAX });
        }
        let attributes = self.attributes(dir, stat)?;
        let mut path = self.tar_path();
        path.push(b'/');
        self.write(path, Kind::Dir, attributes)?;
        if marks.opaque {
            self.mark(OsStr::new(OPAQUE_FILE))?;
        }
        let mut names = BTreeSet::new();
        for entry in list(dir).map_err(|error| self.read(error))? {
            match LayerName::parse(&entry.name) {
                LayerName::Plain(name) | LayerName::Whiteout(name) => names.insert(name.to_owned()),
                LayerName::Opaque | LayerName::Bookkeeping => false,
            };
        }
        for name in names {
            let said = self.layer.entry(dir, marks, &name).map_err(|error| self.read(error))?;
            let path = self.shown().join(&name);
            if self.mountpoints.hold(self.layer, dir, &name, &path, &said).map_err(|error| self.read(error))? {
                continue;
            }
            match said {
                Entry::Absent => {}
                Entry::Whiteout => self.mark(&dot_name(&name))?,
                Entry::Leaf(stat) => self.below(name.clone(), |differ| differ.leaf(dir, &name, &stat))?,
                Entry::Dir { stat, marks } => self.below(name.clone(), |differ| {
                    let child = open::open_dir(dir, &name).map_err(|error| differ.read(error))?;
                    differ.dir(child.as_fd(), &stat, marks)
                })?,
            }
        }
        Ok(())
    }

    fn below(
        &mut self,
        name: OsString,
        work: impl FnOnce(&mut Self) -> Result<(), DiffError>,
    ) -> Result<(), DiffError> {
        self.path.push(name);
        work(self)?;
        self.path.pop();
        Ok(())
    }

    fn leaf(&mut self, dir: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> Result<(), DiffError> {
        let path = self.tar_path();
        if stat.format() == libc::S_IFSOCK {
            self.diffed.sockets_left_out += 1;
            return Ok(());
        }
        let file = open::open_path(dir, name).map_err(|error| self.read(error))?;
        if stat.nlink > 1 {
            let first = self.links.entry((stat.dev, stat.ino)).or_insert_with(|| path.clone()).clone();
            if first != path {
                let attributes = self.attributes(file.as_fd(), stat)?;
                let bare = Attributes { xattrs: Vec::new(), ..attributes };
                return self.write(path, Kind::HardLink { target: first }, bare);
            }
        }
        let attributes = self.attributes(file.as_fd(), stat)?;
        match stat.format() {
            libc::S_IFLNK => {
                let target = open::read_link_fd(file.as_fd()).map_err(|error| self.read(error))?;
                self.write(path, Kind::Symlink { target }, attributes)
            }
            libc::S_IFREG => {
                self.write(path, Kind::File { size: stat.size, pieces: None }, attributes)?;
                self.data(dir, name, stat.size)
            }
            format => self.write(path, Kind::Special { format, rdev: stat.rdev }, attributes),
        }
    }

    fn data(&mut self, dir: BorrowedFd<'_>, name: &OsStr, size: u64) -> Result<(), DiffError> {
        if size == 0 {
            return Ok(());
        }
        let file = open::open_data(dir, name, open::Access::Read).map_err(|error| self.read(error))?;
        let mut buffer = vec![0; usize::try_from(size).unwrap_or(DATA_BYTES).min(DATA_BYTES)];
        let mut at = 0;
        loop {
            let read = copy::read_at(file.as_fd(), at, &mut buffer).map_err(|error| self.read(error))?;
            if read == 0 {
                return Ok(());
            }
            self.archive.data(&buffer[..read]).map_err(|error| self.failed_write(error))?;
            at += read as u64;
        }
    }

    /// A whiteout or an opaque mark: an empty file, dated so that it is always the same.
    fn mark(&mut self, name: &OsStr) -> Result<(), DiffError> {
        let mtime = Timestamp::default();
        let attributes = Attributes { mode: 0o600, uid: 0, gid: 0, mtime, atime: None, xattrs: Vec::new() };
        self.below(name.to_owned(), |differ| {
            let path = differ.tar_path();
            differ.write(path, Kind::File { size: 0, pieces: None }, attributes)
        })
    }

    fn write(&mut self, path: Vec<u8>, kind: Kind, attributes: Attributes) -> Result<(), DiffError> {
        self.diffed.entries += 1;
        self.archive.entry(&Member::new(path, kind, attributes)).map_err(|error| self.failed_write(error))
    }

    fn attributes(&self, file: BorrowedFd<'_>, stat: &Stat) -> Result<Attributes, DiffError> {
        let mut xattrs = Vec::new();
        let mut is_overridden = false;
        let names = xattr::names(file).map_err(|error| self.read(error))?;
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            if ELSEWHERE.iter().any(|mark| name.ends_with(mark)) && is_private_xattr(OsStr::from_bytes(name)) {
                return Err(DiffError::Elsewhere { path: self.shown() });
            }
            let name = OsStr::from_bytes(name);
            is_overridden = is_overridden || is_override_xattr(name);
            if is_private_xattr(name) || is_override_xattr(name) || name == HOST_LABEL {
                continue;
            }
            if let Some(value) = xattr::value(file, name).map_err(|error| self.read(error))? {
                let shown = show_security(name);
                xattrs.push((shown.as_deref().unwrap_or(name).as_bytes().to_vec(), value));
            }
        }
        xattrs.sort_unstable();
        let Stat { mut uid, mut gid, mode, mtime, .. } = *stat;
        // What has no override, as a symbolic link and a root that nobody changed, belongs to the user who made it, and stands for root.
        if self.layer.is_overridden() && !is_overridden && (uid, gid) == self.own {
            (uid, gid) = (0, 0);
        }
        Ok(Attributes { mode: mode & 0o7777, uid, gid, mtime, atime: None, xattrs })
    }

    /// The current name as archives have it: `./` for the root, nothing before the others.
    fn tar_path(&self) -> Vec<u8> {
        match self.path.as_slice() {
            [] => b".".to_vec(),
            path => path.iter().map(|name| name.as_bytes()).collect::<Vec<_>>().join(&b'/'),
        }
    }

    fn shown(&self) -> std::path::PathBuf {
        std::path::Path::new("/").join(self.path.iter().collect::<std::path::PathBuf>())
    }

    fn read(&self, error: crate::error::Error) -> DiffError {
        DiffError::Read { path: self.shown(), error }
    }

    fn failed_write(&self, error: std::io::Error) -> DiffError {
        DiffError::Write { path: self.shown(), error }
    }
}
