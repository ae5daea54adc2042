//! The files of a container or an image, read by the library: no mount, no privilege, and no way out of its root.
//!
//! Owns finding a path, and writing what lies there as an archive. Invariant: a link is followed by this code, inside the tree; the host's kernel
//! is never asked for a path of the container.

use super::error::{Error, Result};
use super::parts::Parts;
use crate::oci::resolve::LINKS_MAX;
use lamina_fs::error::Error as UnionError;
use lamina_fs::layer::{ArchiveAttributes, ArchiveEntry, ArchiveKind, ArchiveWriter, OverrideStat};
use lamina_fs::union::{Attributes, InodeNumber, Kind, Union};
use rustix::process::{getegid, geteuid};
use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path};

/// Levels of directories that are copied.
const DEPTH_MAX: usize = 256;
/// Bytes of a file that are in memory at once.
const DATA_BYTES: usize = 256 << 10;
const FORMAT_MASK: u32 = 0o170_000;

/// A tree of files that can only be read.
pub struct Tree {
    union: Union,
    /// The user whose files stand for root's where no attribute says whose they are.
    own: Option<(u32, u32)>,
}

/// A file of the tree.
#[derive(Debug, Clone, Copy)]
pub struct Node {
    number: InodeNumber,
    /// What is seen of it.
    pub attributes: Attributes,
}

impl Node {
    /// What it is.
    pub fn kind(&self) -> Kind {
        Kind::from_mode(self.attributes.mode)
    }
}

impl Tree {
    /// All that a container or an image shows.
    ///
    /// # Errors
    /// [`Error::Layers`]; an image without layers has no files.
    pub fn of(parts: &Parts) -> Result<Tree> {
        let own = (parts.owners != OverrideStat::Off).then(|| (geteuid().as_raw(), getegid().as_raw()));
        Ok(Tree { union: parts.union(parts.layers())?, own })
    }

    /// What lies at a path, seen from the root whatever it begins with. The last component is followed if it is a link and `follow` says so, or
    /// if a slash is behind it.
    ///
    /// # Errors
    /// [`Error::NoSuchPath`]; what cannot be read.
    pub fn find(&self, path: &Path, follow: bool) -> Result<Node> {
        let fail = |error| failed(path, error);
        let mut way = vec![self.node(InodeNumber::ROOT).map_err(fail)?];
        let mut left: VecDeque<OsString> = components(path);
        let mut links = 0;
        let is_dir_wanted = path.as_os_str().as_bytes().ends_with(b"/");
        while let Some(name) = left.pop_front() {
            if name == ".." {
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            let parent = way[way.len() - 1];
            if parent.kind() != Kind::Directory {
                return Err(failed(path, UnionError::NotDirectory));
            }
            let found = self.union.lookup(parent.number, &name).map_err(fail)?;
            let attributes = found.ok_or_else(|| Error::NoSuchPath { path: path.to_owned() })?;
            let node = Node { number: attributes.number, attributes };
            if node.kind() != Kind::Symlink || left.is_empty() && !follow && !is_dir_wanted {
                way.push(node);
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(Error::TooManyLinks { path: path.to_owned() });
            }
            let target = OsString::from_vec(self.union.read_link(node.number).map_err(fail)?);
            if target.as_bytes().starts_with(b"/") {
                way.truncate(1);
            }
            for name in components(Path::new(&target)).into_iter().rev() {
                left.push_front(name);
            }
        }
        let node = way[way.len() - 1];
        match is_dir_wanted && node.kind() != Kind::Directory {
            true => Err(failed(path, UnionError::NotDirectory)),
            false => Ok(node),
        }
    }

    fn node(&self, number: InodeNumber) -> std::result::Result<Node, UnionError> {
        Ok(Node { number, attributes: self.union.attributes(number)? })
    }

    /// Writes a file, or a directory with everything in it, as an archive in which it is called `name`: `.` for its content alone. Answers how many
    /// sockets were left out, which no archive can hold.
    ///
    /// # Errors
    /// What cannot be read or written.
    pub fn archive(&self, node: &Node, name: &OsStr, out: impl Write) -> Result<u64> {
        let mut archiver = Archiver {
            union: &self.union,
            own: self.own,
            archive: ArchiveWriter::new(out),
            links: HashMap::new(),
            sockets: 0,
        };
        archiver.entry(node, name.as_bytes().to_vec(), 0)?;
        archiver.archive.finish().map_err(|error| unwritten(Path::new(name), error))?;
        Ok(archiver.sockets)
    }
}

/// The names of a path, `..` among them.
fn components(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    names.collect()
}

fn failed(path: &Path, error: UnionError) -> Error {
    Error::Layers { sentence: format!("{}: {error}", path.display()) }
}

fn unwritten(path: &Path, error: std::io::Error) -> Error {
    Error::Unwritten { path: path.to_owned(), cause: error }
}

struct Archiver<'a, W> {
    union: &'a Union,
    own: Option<(u32, u32)>,
    archive: ArchiveWriter<W>,
    /// The first name of each file that has several.
    links: HashMap<u64, Vec<u8>>,
    sockets: u64,
}

impl<W: Write> Archiver<'_, W> {
    fn entry(&mut self, node: &Node, path: Vec<u8>, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(Error::TooDeep { path: shown(&path), max: DEPTH_MAX });
        }
        let attributes = &node.attributes;
        let kind = match node.kind() {
            Kind::Socket => {
                self.sockets += 1;
                return Ok(());
            }
            Kind::Directory => return self.directory(node, path, depth),
            _ if attributes.nlink > 1 && self.links.contains_key(&attributes.st_ino) => {
                ArchiveKind::HardLink { target: self.links[&attributes.st_ino].clone() }
            }
            Kind::Symlink => {
                let target = self.union.read_link(node.number);
                ArchiveKind::Symlink { target: target.map_err(|error| failed(&shown(&path), error))? }
            }
            Kind::Regular => ArchiveKind::File { size: attributes.size, pieces: None },
            Kind::Fifo | Kind::CharDevice | Kind::BlockDevice => {
                ArchiveKind::Special { format: attributes.mode & FORMAT_MASK, rdev: attributes.rdev }
            }
        };
        let has_data = matches!(kind, ArchiveKind::File { .. });
        self.header(node, path.clone(), kind)?;
        if attributes.nlink > 1 {
            self.links.entry(attributes.st_ino).or_insert_with(|| path.clone());
        }
        if has_data { self.data(node, &path) } else { Ok(()) }
    }

    fn directory(&mut self, node: &Node, path: Vec<u8>, depth: usize) -> Result<()> {
        self.header(node, [&path[..], b"/"].concat(), ArchiveKind::Dir)?;
        let fail = |error| failed(&shown(&path), error);
        let listing = self.union.read_dir(node.number, 0).map_err(fail)?;
        let mut names: Vec<&OsStr> = listing.entries.iter().map(|entry| &*entry.name).collect();
        names.sort_unstable();
        for name in names.into_iter().filter(|name| *name != "." && *name != "..") {
            // It may have gone since the listing: a container may run.
            let Some(attributes) = self.union.lookup(node.number, name).map_err(fail)? else { continue };
            let child = Node { number: attributes.number, attributes };
            let written = self.entry(&child, [&path[..], b"/", name.as_bytes()].concat(), depth + 1);
            self.union.forget(child.number, 1);
            written?;
        }
        Ok(())
    }

    fn header(&mut self, node: &Node, path: Vec<u8>, kind: ArchiveKind) -> Result<()> {
        let attributes = &node.attributes;
        let mut xattrs = Vec::new();
        if !matches!(kind, ArchiveKind::HardLink { .. }) {
            let fail = |error| failed(&shown(&path), error);
            let names = self.union.list_xattrs(node.number).map_err(fail)?;
            for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
                match self.union.xattr(node.number, OsStr::from_bytes(name)) {
                    Ok(value) => xattrs.push((name.to_vec(), value)),
                    // Of another user's file, for one.
                    Err(UnionError::NoAttribute | UnionError::NotPermitted) => {}
                    Err(error) => return Err(fail(error)),
                }
            }
            xattrs.sort_unstable();
        }
        let (mode, mtime) = (attributes.mode & 0o7777, attributes.mtime);
        // A link takes no attribute that could say whose it is.
        let (uid, gid) = match (node.kind(), attributes.uid, attributes.gid) {
            (Kind::Symlink, uid, gid) if self.own == Some((uid, gid)) => (0, 0),
            (_, uid, gid) => (uid, gid),
        };
        let attributes = ArchiveAttributes { mode, uid, gid, mtime, atime: None, xattrs };
        let entry = ArchiveEntry::new(path.clone(), kind, attributes);
        self.archive.entry(&entry).map_err(|error| unwritten(&shown(&path), error))
    }

    fn data(&mut self, node: &Node, path: &[u8]) -> Result<()> {
        let mut buffer = vec![0; DATA_BYTES];
        let mut at = 0;
        while at < node.attributes.size {
            let wanted = usize::try_from(node.attributes.size - at).unwrap_or(DATA_BYTES).min(DATA_BYTES);
            let read = self.union.read(node.number, at, &mut buffer[..wanted]);
            let read = read.map_err(|error| failed(&shown(path), error))?;
            if read == 0 {
                // The header is written: an archive that lies about its size would be worse.
                return Err(Error::Layers {
                    sentence: format!("{}: it shrank while it was read", shown(path).display()),
                });
            }
            self.archive.data(&buffer[..read]).map_err(|error| unwritten(&shown(path), error))?;
            at += read as u64;
        }
        Ok(())
    }
}

fn shown(path: &[u8]) -> std::path::PathBuf {
    Path::new(OsStr::from_bytes(path)).to_owned()
}
