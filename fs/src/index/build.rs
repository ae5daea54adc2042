//! Writing an index.
//!
//! Owns what becomes of files once they are told: numbers, tables, interned attributes. Must not know how layers combine.
//! Invariant: the file appears under its name whole and on the disk, or not at all.

use super::error::IndexError;
use super::format::{Header, Section, checksum_of};
use super::hash;
use super::record::{
    BUCKET_BYTES, ENTRY_BYTES, EntryRecord, Extra, LayerRecord, NODE_BYTES, NodeRecord, PART_BYTES, Part, Span, Table,
    XATTR_BYTES, XATTR_SET_BYTES, XattrRecord, put_table,
};
use super::summary::IndexSummary;
use super::view::NodeId;
use crate::layer::LayerId;
use crate::sys::stat::Stat;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Names that a bucket of a large directory holds on average, at the most.
const BUCKET_ENTRIES: usize = 2;
/// Directories of no more names than this have no buckets: their whole table is a cache line.
const SMALL_DIR_ENTRIES: usize = 4;

/// What a file is besides its attributes.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// Nothing that an index keeps.
    Leaf,
    /// A symbolic link with this target.
    Link(&'a [u8]),
    /// A directory that these layers' directories merge into, topmost first.
    Dir(&'a [Part]),
}

/// An index in memory, on its way to a file.
#[derive(Debug, Default)]
pub struct IndexWriter {
    layers: Vec<LayerRecord>,
    sections: [Vec<u8>; Section::ALL.len()],
    directories: u32,
    /// Sets of attributes by their encoding.
    sets: HashMap<Vec<u8>, u32>,
    /// Files with several names.
    linked: HashMap<(LayerId, u64), NodeId>,
    /// Scratch: tag, child's place in its list.
    order: Vec<(u32, u32)>,
}

impl IndexWriter {
    /// An empty index of these layers, topmost first. The first node that is added must be the root directory.
    pub fn new(layers: Vec<LayerRecord>) -> IndexWriter {
        let mut writer = IndexWriter::default();
        for layer in &layers {
            writer.section(Section::Layers).extend_from_slice(&layer.encode());
        }
        writer.section(Section::XattrSets).extend_from_slice(&[0; XATTR_SET_BYTES]);
        writer.layers = layers;
        writer
    }

    /// Where a name stands in its directory's table. Files that are added in this order are listed in the order of memory.
    pub fn rank(name: &OsStr) -> u32 {
        hash::tag(name.as_bytes())
    }

    /// The node of a file with several names, where one of them was added.
    pub fn linked(&self, layer: LayerId, stat: &Stat) -> Option<NodeId> {
        if stat.nlink < 2 || stat.is_dir() {
            return None;
        }
        self.linked.get(&(layer, stat.ino)).copied()
    }

    /// Adds a file. `xattrs`: name and value, in any order.
    pub fn add(
        &mut self,
        stat: &Stat,
        layer: LayerId,
        xattrs: Vec<(Vec<u8>, Vec<u8>)>,
        content: Content<'_>,
    ) -> Result<NodeId, IndexError> {
        let node = NodeId(self.next(Section::Nodes, NODE_BYTES)?);
        let extra = match content {
            Content::Leaf => Extra::Nothing,
            Content::Link(target) => Extra::Target(self.append(Section::Strings, target)?),
            Content::Dir(parts) => Extra::Table(self.begin_dir(parts)?),
        };
        let record = NodeRecord { stat: *stat, layer, xattrs: self.set_of(xattrs)?, extra };
        self.section(Section::Nodes).extend_from_slice(&record.encode());
        if stat.nlink > 1 && !stat.is_dir() {
            self.linked.insert((layer, stat.ino), node);
        }
        Ok(node)
    }

    fn begin_dir(&mut self, parts: &[Part]) -> Result<Table, IndexError> {
        let first_part = self.next(Section::Parts, PART_BYTES)?;
        for part in parts {
            self.section(Section::Parts).extend_from_slice(&part.encode());
        }
        self.directories += 1;
        let parts = u16::try_from(parts.len()).map_err(|_| IndexError::TooLarge { what: "layers" })?;
        Ok(Table { first_part, parts, ..Table::default() })
    }

    /// Gives a directory its names, once.
    pub fn fill<N: AsRef<OsStr>>(&mut self, dir: NodeId, children: &[(N, NodeId)]) -> Result<(), IndexError> {
        let name_of = |at: u32| children[at as usize].0.as_ref().as_bytes();
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        order.extend(children.iter().zip(0_u32..).map(|(child, at)| (hash::tag(child.0.as_ref().as_bytes()), at)));
        order.sort_unstable_by(|left, right| left.0.cmp(&right.0).then_with(|| name_of(left.1).cmp(name_of(right.1))));
        let first_entry = self.next(Section::Entries, ENTRY_BYTES)?;
        let entries = u32::try_from(children.len()).map_err(|_| IndexError::TooLarge { what: "names" })?;
        for (tag, at) in &order {
            let name = self.append(Section::Names, name_of(*at))?;
            let record = EntryRecord { tag: *tag, name, node: children[*at as usize].1.0 };
            self.section(Section::Entries).extend_from_slice(&record.encode());
        }
        let (first_bucket, bucket_bits) = self.add_buckets(&order)?;
        self.order = order;
        let start = dir.0 as usize * NODE_BYTES;
        let node = &mut self.section(Section::Nodes)[start..start + NODE_BYTES];
        // Parts were written when the node was added.
        if let Some(Extra::Table(known)) = node.first_chunk::<NODE_BYTES>().map(super::record::extra) {
            put_table(node, &Table { first_entry, entries, first_bucket, bucket_bits, ..known });
        }
        Ok(())
    }

    fn add_buckets(&mut self, order: &[(u32, u32)]) -> Result<(u32, u8), IndexError> {
        let first = self.next(Section::Buckets, BUCKET_BYTES)?;
        if order.len() <= SMALL_DIR_ENTRIES {
            return Ok((first, 0));
        }
        let buckets = order.len().div_ceil(BUCKET_ENTRIES).next_power_of_two();
        let bits = buckets.trailing_zeros() as u8;
        let boundaries = self.section(Section::Buckets);
        let mut at = 0;
        for bucket in 0..buckets as u64 {
            while order.get(at).is_some_and(|(tag, _)| u64::from(*tag >> (32 - bits)) < bucket) {
                at += 1;
            }
            boundaries.extend_from_slice(&(at as u32).to_le_bytes());
        }
        boundaries.extend_from_slice(&(order.len() as u32).to_le_bytes());
        Ok((first, bits))
    }

    fn set_of(&mut self, mut xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Result<u32, IndexError> {
        if xattrs.is_empty() {
            return Ok(0);
        }
        xattrs.sort_unstable();
        let mut key = Vec::new();
        for text in xattrs.iter().flat_map(|(name, value)| [name, value]) {
            key.extend_from_slice(&(text.len() as u64).to_le_bytes());
            key.extend_from_slice(text);
        }
        if let Some(known) = self.sets.get(&key) {
            return Ok(*known);
        }
        let set = self.next(Section::XattrSets, XATTR_SET_BYTES)?;
        let first = self.next(Section::Xattrs, XATTR_BYTES)?;
        let count = xattrs.len() as u32;
        for (name, value) in xattrs {
            let (name, value) = (self.append(Section::Strings, &name)?, self.append(Section::Strings, &value)?);
            self.section(Section::Xattrs).extend_from_slice(&XattrRecord { name, value }.encode());
        }
        let sets = self.section(Section::XattrSets);
        sets.extend_from_slice(&first.to_le_bytes());
        sets.extend_from_slice(&count.to_le_bytes());
        self.sets.insert(key, set);
        Ok(set)
    }

    fn section(&mut self, section: Section) -> &mut Vec<u8> {
        &mut self.sections[section as usize]
    }

    /// The number of a section's next record.
    fn next(&mut self, section: Section, record_bytes: usize) -> Result<u32, IndexError> {
        let records = self.section(section).len() / record_bytes;
        u32::try_from(records).map_err(|_| IndexError::TooLarge { what: section.name() })
    }

    fn append(&mut self, section: Section, bytes: &[u8]) -> Result<Span, IndexError> {
        let offset = self.next(section, 1)?;
        self.section(section).extend_from_slice(bytes);
        Ok(Span { offset, length: bytes.len() as u32 })
    }

    fn header(&self) -> Header {
        let mut header = Header::lay_out(std::array::from_fn(|at| self.sections[at].len()), self.directories);
        header.body_checksum = checksum_of(|take| {
            self.body(&header, |bytes| {
                take(bytes);
                Ok(())
            })
        })
        .unwrap_or_default();
        header
    }

    /// Everything behind the header, in pieces.
    fn body(&self, header: &Header, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut end = super::format::HEADER_BYTES;
        for (range, bytes) in header.sections.iter().zip(&self.sections) {
            take(&[0; super::format::ALIGNMENT][..range.start - end])?;
            take(bytes)?;
            end = range.end;
        }
        Ok(())
    }

    /// Writes the index: to a name beside `out`, to the disk, then under its own name.
    pub fn finish(self, out: &Path) -> Result<IndexSummary, IndexError> {
        let header = self.header();
        let fail = |error| IndexError::Write { path: out.to_owned(), error };
        let temporary = temporary_beside(out).map_err(fail)?;
        let written = self.write(&header, &temporary).and_then(|()| std::fs::rename(&temporary, out));
        if let Err(error) = written {
            // Best effort: what failed is told below, and the name says what it is.
            if let Err(error) = std::fs::remove_file(&temporary) {
                log::debug!("{} stays behind: {error}", temporary.display());
            }
            return Err(fail(error));
        }
        sync_dir_of(out).map_err(fail)?;
        Ok(IndexSummary::new(&header, self.layers))
    }

    fn write(&self, header: &Header, path: &Path) -> io::Result<()> {
        let mut file = File::create_new(path)?;
        file.write_all(&header.encode())?;
        self.body(header, |bytes| file.write_all(bytes))?;
        file.sync_all()
    }

    /// The whole file in memory.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> Vec<u8> {
        let header = self.header();
        let mut bytes = header.encode().to_vec();
        self.body(&header, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })
        .expect("memory does not fail");
        bytes
    }
}

fn temporary_beside(out: &Path) -> io::Result<PathBuf> {
    let mut name = out.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".new-{}", std::process::id()));
    Ok(out.with_file_name(name))
}

fn sync_dir_of(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}
