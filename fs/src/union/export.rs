//! Every file that a stack of layers shows, told to an index.
//!
//! Owns the walk. Asks `merge` what is visible, of the layers that mention a name: the others would say nothing. Invariant:
//! what an index says of a name is what a mount of the same layers without one would.

use super::merge::{DirPart, Visible, resolve};
use super::stack::Stack;
use super::{Config, root_inode};
use crate::error::{Error, Result};
use crate::index::{Content, Index, IndexError, IndexSummary, IndexWriter, LayerRecord, NodeId, Part};
use crate::layer::{Layer, LayerId, LayerName, list};
use crate::sys::stat::Stat;
use crate::sys::{open, xattr};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

#[cfg(test)]
mod tests;

/// Directories that are kept open at the most, besides the one being read and the layers' roots.
const OPEN_DIRS_MAX: usize = 128;

/// Writes the index of a mount's lower layers to `out`. `progress` is told how many names there are so far.
///
/// # Errors
/// A sentence that names the path; `out` is as it was then.
pub fn build_index(config: &Config, out: &Path, progress: impl FnMut(u64)) -> Result<IndexSummary, IndexError> {
    let stack = open_lowers(config)?;
    walk(&stack, progress)?.finish(out)
}

/// Checks all of an index, and with `config` that it is the one of its lower layers.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn verify_index(file: &Path, config: Option<&Config>) -> Result<IndexSummary, IndexError> {
    let index = match config {
        Some(config) => Index::open(file, &open_lowers(config)?.layers().collect::<Vec<_>>())?,
        None => Index::open_any(file)?,
    };
    index.verify(file)?;
    Ok(index.summary())
}

fn open_lowers(config: &Config) -> Result<Stack, IndexError> {
    Ok(Stack::open(&Config { upper: None, ..config.clone() })?)
}

fn walk(stack: &Stack, mut progress: impl FnMut(u64)) -> Result<IndexWriter, IndexError> {
    let fail = |error| IndexError::Walk { path: "/".into(), error };
    let layers = stack.layers().map(LayerRecord::of).collect::<Result<_>>().map_err(fail)?;
    let root = root_inode(stack).map_err(fail)?;
    let mut walk = Walk { stack, writer: IndexWriter::new(layers), open: Vec::new(), names: 0 };
    let root = walk.dir(OsString::new(), root.lower_parts().to_vec(), None)?;
    walk.visit(root)?;
    while let Some(dir) = walk.open.last_mut() {
        match dir.pending.pop() {
            Some(child) => walk.visit(child)?,
            None => drop(walk.open.pop()),
        }
        progress(walk.names);
    }
    Ok(walk.writer)
}

/// A directory that is known and not yet read.
struct Pending {
    node: NodeId,
    name: OsString,
    parts: Vec<DirPart>,
}

/// A directory that was read, while those in it are.
struct OpenDir {
    name: OsString,
    parts: Vec<DirPart>,
    /// Of each part; none where there are too many of them.
    descriptors: Vec<OwnedFd>,
    pending: Vec<Pending>,
}

impl OpenDir {
    fn descriptor(&self, layer: LayerId) -> Option<BorrowedFd<'_>> {
        let at = self.parts.iter().position(|part| part.layer == layer)?;
        self.descriptors.get(at).map(AsFd::as_fd)
    }
}

/// That one part of a directory has a name, or hides it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Mention {
    rank: u32,
    name: OsString,
    part: usize,
}

/// What a directory shows, and the directories among it.
#[derive(Default)]
struct Children {
    names: Vec<(OsString, NodeId)>,
    pending: Vec<Pending>,
}

struct Walk<'a> {
    stack: &'a Stack,
    writer: IndexWriter,
    /// From the root to the directory being read.
    open: Vec<OpenDir>,
    names: u64,
}

impl Walk<'_> {
    fn visit(&mut self, dir: Pending) -> Result<(), IndexError> {
        let mut descriptors = Vec::with_capacity(dir.parts.len());
        for part in &dir.parts {
            let opened = self.open_part(part.layer, &dir.name);
            descriptors.push(opened.map_err(|error| self.failed(&dir.name, error))?);
        }
        let node = dir.node;
        self.open.push(OpenDir { name: dir.name, parts: dir.parts, descriptors, pending: Vec::new() });
        self.make_room();
        let Children { names, mut pending } = self.children()?;
        self.names += names.len() as u64;
        self.writer.fill(node, &names)?;
        // They are taken from the end.
        pending.reverse();
        if let Some(dir) = self.open.last_mut() {
            dir.pending = pending;
        }
        Ok(())
    }

    /// Opens one layer's part of a directory, from the nearest directory above it that is open, one name at a time.
    fn open_part(&self, layer: LayerId, name: &OsStr) -> Result<OwnedFd> {
        if self.open.is_empty() {
            return open::reopen_dir(self.stack.layer(layer)?.root());
        }
        let nearest = self.open.iter().rposition(|dir| dir.descriptor(layer).is_some());
        let start = match nearest.and_then(|at| self.open[at].descriptor(layer)) {
            Some(descriptor) => descriptor,
            None => self.stack.layer(layer)?.root(),
        };
        // The first is the root, which has no name.
        let between = &self.open[nearest.unwrap_or_default() + 1..];
        let mut reached: Option<OwnedFd> = None;
        for name in between.iter().map(|dir| &*dir.name).chain([name]) {
            let parent = reached.as_ref().map_or(start, AsFd::as_fd);
            reached = Some(open::open_dir(parent, name)?);
        }
        reached.ok_or(Error::NotFound)
    }

    /// Closes directories far above the one being read.
    fn make_room(&mut self) {
        let Some((_, above)) = self.open.split_last_mut() else { return };
        let mut count: usize = above.iter().map(|dir| dir.descriptors.len()).sum();
        for dir in above {
            if count <= OPEN_DIRS_MAX {
                return;
            }
            count -= dir.descriptors.len();
            dir.descriptors = Vec::new();
        }
    }

    /// What the directory being read shows; the directories among it are still to be read.
    fn children(&mut self) -> Result<Children, IndexError> {
        let Some(dir) = self.open.pop() else { return Ok(Children::default()) };
        let mentions = self.mentions(&dir).map_err(|error| self.failed(&dir.name, error))?;
        let mut children = Children::default();
        for same_name in mentions.chunk_by(|left, right| left.name == right.name) {
            let name = &same_name[0].name;
            let asked = same_name.iter().map(|mention| self.ask(&dir, mention.part, name));
            let visible = resolve(asked).map_err(|error| self.failed(&dir.name, error).below(name))?;
            let node = match visible {
                Visible::Nothing => continue,
                Visible::Leaf { on, stat } => self.leaf(&dir, name, on, &stat)?,
                Visible::Dir(parts) => {
                    let child = self.dir(name.clone(), parts, Some(&dir))?;
                    let node = child.node;
                    children.pending.push(child);
                    node
                }
            };
            children.names.push((name.clone(), node));
        }
        self.open.push(dir);
        Ok(children)
    }

    /// Every name that a part mentions, shown or hidden: in the order of the table, then topmost first.
    fn mentions(&self, dir: &OpenDir) -> Result<Vec<Mention>> {
        let mut mentions = Vec::new();
        let mention = |name: OsString, part| Mention { rank: IndexWriter::rank(&name), name, part };
        for (part, descriptor) in dir.descriptors.iter().enumerate() {
            for entry in list(descriptor.as_fd())? {
                match LayerName::parse(&entry.name) {
                    LayerName::Plain(_) => mentions.push(mention(entry.name, part)),
                    LayerName::Whiteout(hidden) => mentions.push(mention(hidden.to_owned(), part)),
                    LayerName::Opaque | LayerName::Bookkeeping => {}
                }
            }
        }
        mentions.sort_unstable();
        // A name beside its own whiteout is asked for once.
        mentions.dedup();
        Ok(mentions)
    }

    fn ask(&self, dir: &OpenDir, at: usize, name: &OsStr) -> Result<(LayerId, crate::layer::Entry)> {
        let part = &dir.parts[at];
        let entry = self.stack.layer(part.layer)?.entry(dir.descriptors[at].as_fd(), part.marks, name)?;
        Ok((part.layer, entry))
    }

    fn leaf(&mut self, dir: &OpenDir, name: &OsStr, on: LayerId, stat: &Stat) -> Result<NodeId, IndexError> {
        if let Some(known) = self.writer.linked(on, stat) {
            return Ok(known);
        }
        let path = || self.path(dir).join(name);
        let layer = self.layer(on, stat, path)?;
        let read = || {
            let parent = dir.descriptor(layer.id()).ok_or(Error::NotFound)?;
            let target = match stat.format() {
                libc::S_IFLNK => Some(open::read_link(parent, name)?),
                _ => None,
            };
            Ok((xattrs_at(parent, name)?, target))
        };
        let (xattrs, target) = read().map_err(|error| IndexError::Walk { path: path(), error })?;
        let content = target.as_deref().map_or(Content::Leaf, Content::Link);
        self.writer.add(stat, on, xattrs, content)
    }

    fn dir(&mut self, name: OsString, parts: Vec<DirPart>, parent: Option<&OpenDir>) -> Result<Pending, IndexError> {
        let path = || parent.map_or(PathBuf::from("/"), |parent| self.path(parent).join(&name));
        let top = parts[0];
        for part in &parts {
            self.layer(part.layer, &part.stat, path)?;
        }
        let read = || match parent.map(|parent| parent.descriptor(top.layer)) {
            Some(descriptor) => xattrs_at(descriptor.ok_or(Error::NotFound)?, &name),
            None => xattrs(self.stack.layer(top.layer)?.root()),
        };
        let xattrs = read().map_err(|error| IndexError::Walk { path: path(), error })?;
        let told: Vec<Part> =
            parts.iter().map(|part| Part { layer: part.layer, ino: part.stat.ino, marks: part.marks }).collect();
        let node = self.writer.add(&top.stat, top.layer, xattrs, Content::Dir(&told))?;
        Ok(Pending { node, name, parts })
    }

    /// The layer of a file, which must lie on the layer's device: the index keeps one for all.
    fn layer(&self, id: LayerId, stat: &Stat, path: impl Fn() -> PathBuf) -> Result<&Layer, IndexError> {
        let layer = self.stack.layer(id).map_err(|error| IndexError::Walk { path: path(), error })?;
        match layer.dev() == stat.dev {
            true => Ok(layer),
            false => Err(IndexError::OtherDevice { path: path() }),
        }
    }

    /// Where a directory below the open ones lies in the union.
    fn path(&self, dir: &OpenDir) -> PathBuf {
        Path::new("/").join(self.open.iter().map(|dir| &dir.name).chain([&dir.name]).collect::<PathBuf>())
    }

    fn failed(&self, name: &OsStr, error: Error) -> IndexError {
        let above = self.open.iter().map(|dir| &*dir.name).chain([name]).collect::<PathBuf>();
        IndexError::Walk { path: Path::new("/").join(above), error }
    }
}

impl IndexError {
    fn below(self, name: &OsStr) -> IndexError {
        match self {
            IndexError::Walk { path, error } => IndexError::Walk { path: path.join(name), error },
            other => other,
        }
    }
}

/// All attributes as the layer has them; which of them users see depends on the mount.
fn xattrs(file: BorrowedFd<'_>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    values(file, &xattr::names(file)?)
}

/// The same for a name in a directory. Most have none, and one call tells that.
fn xattrs_at(parent: BorrowedFd<'_>, name: &OsStr) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    match xattr::names_at(parent, name)? {
        none if none.is_empty() => Ok(Vec::new()),
        names => values(open::open_path(parent, name)?.as_fd(), &names),
    }
}

fn values(file: BorrowedFd<'_>, names: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        // Gone since it was listed, or listed to those only who may not read it.
        if let Some(value) = xattr::value(file, OsStr::from_bytes(name))? {
            found.push((name.to_vec(), value));
        }
    }
    Ok(found)
}
