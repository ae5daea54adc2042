//! Reading an index.
//!
//! Owns the map. Invariants: nothing is allocated and no lock is taken by `find` and `node`; every reference is checked where
//! it is used, and one that leads nowhere shows nothing. It is not done once for all at opening, because that would touch
//! every page of a file of which a mount may need a hundredth; `check` does it for `index verify`.

use super::error::IndexError;
use super::format::{Header, HeaderError, Section, VERSION, checksum};
use super::hash;
use super::record::{
    BUCKET_BYTES, ENTRY_BYTES, EntryRecord, Extra, LAYER_BYTES, LayerRecord, NODE_BYTES, NodeRecord, PART_BYTES, Part,
    Span, Table, XATTR_BYTES, XATTR_SET_BYTES, XattrRecord, extra,
};
use super::summary::IndexSummary;
use crate::layer::{Layer, LayerId};
use crate::sys::map::Map;
use crate::sys::stat::Stat;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Files up to this size are checked whole when they are opened: some ten milliseconds. Reading all of a larger one would
/// delay every mount of its image, and nothing unsafe follows from damage, so there it is left to `index verify`.
const CHECKED_BYTES_MAX: usize = 16 << 20;
/// Bytes of the longest name (`NAME_MAX`), of an attribute's too (`XATTR_NAME_MAX`).
pub(super) const NAME_BYTES_MAX: usize = 255;
/// Bytes of the longest target of a link (`PATH_MAX`, with the NUL that is not stored).
const TARGET_BYTES_MAX: usize = 4095;
/// Bytes of the longest value of an attribute (`XATTR_SIZE_MAX`).
const VALUE_BYTES_MAX: usize = 65536;

/// A file of the index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NodeId(pub u32);

/// What an index says of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its attributes in its layer, its kind in the mode. What hard links have in common is the layer and `stat.ino`.
    pub stat: Stat,
    /// The layer that shows it.
    pub layer: LayerId,
    /// Whether it has extended attributes.
    pub has_xattrs: bool,
}

/// An index in use.
#[derive(Debug)]
pub struct Index {
    map: Map,
    header: Header,
    /// Device of each layer, by its place below the upper one.
    devices: Box<[u64]>,
}

impl Index {
    /// Opens the index of these layers, topmost first.
    ///
    /// # Errors
    /// A sentence where it is not theirs, of another version, truncated or damaged.
    pub fn open(path: &Path, layers: &[&Layer]) -> Result<Index, IndexError> {
        let index = Index::open_any(path)?;
        index.attach(path, layers)
    }

    /// Opens an index without its layers: for looking at, not for mounting.
    pub fn open_any(path: &Path) -> Result<Index, IndexError> {
        let fail = |error| IndexError::Read { path: path.to_owned(), error };
        let file = File::open(path).map_err(fail)?;
        if !file.metadata().map_err(fail)?.is_file() {
            return Err(IndexError::NotAnIndex { path: path.to_owned() });
        }
        let map = Map::of_file(&file).map_err(fail)?;
        let index = Index::of_map(path, map)?;
        if index.map.len() <= CHECKED_BYTES_MAX {
            index.check_sum(path)?;
        }
        Ok(index)
    }

    /// Opens an index in memory, as if it were too large for its checksum to be computed; `name` is for errors.
    pub fn from_bytes(name: &Path, bytes: &[u8]) -> Result<Index, IndexError> {
        let map = Map::of_bytes(bytes).map_err(|error| IndexError::Read { path: name.to_owned(), error })?;
        Index::of_map(name, map)
    }

    fn of_map(path: &Path, map: Map) -> Result<Index, IndexError> {
        let path = || path.to_owned();
        let header = Header::parse(&map).map_err(|error| match error {
            HeaderError::NotAnIndex => IndexError::NotAnIndex { path: path() },
            HeaderError::OtherVersion(found) => IndexError::OtherVersion { path: path(), found, known: VERSION },
            HeaderError::Truncated { expected } => {
                IndexError::Truncated { path: path(), expected, found: map.len() as u64 }
            }
            HeaderError::Damaged(what) => IndexError::Damaged { path: path(), what },
        })?;
        let devices = vec![0; header.records(Section::Layers)].into();
        let index = Index { map, header, devices };
        match index.node(index.root()) {
            Some(root) if root.stat.is_dir() => Ok(index),
            _ => Err(IndexError::Damaged { path: path(), what: "it has no root directory" }),
        }
    }

    fn attach(mut self, path: &Path, layers: &[&Layer]) -> Result<Index, IndexError> {
        let (built, given) = (self.devices.len(), layers.len());
        if built != given {
            return Err(IndexError::LayerCount { path: path.to_owned(), built, given });
        }
        for (number, (stored, layer)) in (1..).zip(self.layers().zip(layers)) {
            let now = LayerRecord::of(layer)
                .map_err(|error| IndexError::Walk { path: format!("lower layer number {number}").into(), error })?;
            if let Some(what) = stored.difference(&now) {
                return Err(IndexError::OtherLayer { path: path.to_owned(), number, what });
            }
        }
        self.devices = layers.iter().map(|layer| layer.dev()).collect();
        Ok(self)
    }

    /// Compares the checksum of the whole file.
    pub(super) fn check_sum(&self, path: &Path) -> Result<(), IndexError> {
        match checksum(&self.map[super::format::HEADER_BYTES..]) == self.header.body_checksum {
            true => Ok(()),
            false => Err(IndexError::Damaged { path: path.to_owned(), what: "its checksum is wrong" }),
        }
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// The layers it was built of, topmost first.
    pub fn layers(&self) -> impl Iterator<Item = LayerRecord> {
        self.section(Section::Layers).as_chunks::<LAYER_BYTES>().0.iter().map(LayerRecord::decode)
    }

    /// What it holds, in numbers.
    pub fn summary(&self) -> IndexSummary {
        IndexSummary::new(&self.header, self.layers().collect())
    }

    /// The root directory.
    pub fn root(&self) -> NodeId {
        NodeId(0)
    }

    /// The file of a name in a directory.
    #[inline]
    pub fn find(&self, dir: NodeId, name: &OsStr) -> Option<NodeId> {
        let name = name.as_bytes();
        let tag = hash::tag(name);
        let bucket = self.bucket(&self.table(dir)?, tag)?;
        // By halves, not from one to the next: a bucket of names chosen to collide is no trap.
        let order = |raw: &[u8; ENTRY_BYTES]| {
            let entry = EntryRecord::decode(raw);
            entry.tag.cmp(&tag).then_with(|| self.name(entry.name).unwrap_or_default().cmp(name))
        };
        let found = bucket.binary_search_by(order).ok()?;
        self.known(EntryRecord::decode(&bucket[found]).node)
    }

    /// What is known of a file; `None` where the number or its record is none of this index.
    #[inline]
    pub fn node(&self, node: NodeId) -> Option<Node> {
        let NodeRecord { mut stat, layer, xattrs, .. } = NodeRecord::decode(self.node_record(node)?);
        stat.dev = *self.devices.get(usize::from(layer.0).checked_sub(1)?)?;
        Some(Node { stat, layer, has_xattrs: xattrs != 0 })
    }

    /// The layers whose directories merge into this one, topmost first.
    pub fn parts(&self, dir: NodeId) -> impl Iterator<Item = Part> {
        let parts = self
            .table(dir)
            .and_then(|table| self.records::<PART_BYTES>(Section::Parts, table.first_part, usize::from(table.parts)));
        let layers = self.devices.len();
        let known = move |part: &Part| (1..=layers).contains(&usize::from(part.layer.0));
        parts.unwrap_or_default().iter().map(Part::decode).filter(known)
    }

    /// The names of a directory: always in the same order, and `nth` is as quick as `next`.
    pub fn entries(&self, dir: NodeId) -> Entries<'_> {
        let records = self.table(dir).and_then(|table| self.all_entries(&table));
        Entries { index: self, records: records.unwrap_or_default() }
    }

    /// The target of a symbolic link.
    pub fn link_target(&self, node: NodeId) -> Option<&[u8]> {
        match extra(self.node_record(node)?) {
            Extra::Target(span) => self.target(span),
            _ => None,
        }
    }

    pub(super) fn target(&self, span: Span) -> Option<&[u8]> {
        self.string(span).filter(|target| (1..=TARGET_BYTES_MAX).contains(&target.len()))
    }

    /// The value of an attribute, by its name in the layer.
    pub fn xattr(&self, node: NodeId, name: &OsStr) -> Option<&[u8]> {
        let found = self.xattr_records(node).find(|xattr| self.string(xattr.name) == Some(name.as_bytes()))?;
        self.xattr_value(found.value)
    }

    pub(super) fn xattr_value(&self, span: Span) -> Option<&[u8]> {
        self.string(span).filter(|value| value.len() <= VALUE_BYTES_MAX)
    }

    pub(super) fn xattr_name(&self, span: Span) -> Option<&[u8]> {
        self.string(span).filter(|name| (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains(&0))
    }

    /// The names of all attributes, as in the layer.
    pub fn xattr_names(&self, node: NodeId) -> impl Iterator<Item = &OsStr> {
        self.xattr_records(node).filter_map(|xattr| self.xattr_name(xattr.name)).map(OsStr::from_bytes)
    }

    fn xattr_records(&self, node: NodeId) -> impl Iterator<Item = XattrRecord> {
        let set = self.node_record(node).map(|raw| NodeRecord::decode(raw).xattrs);
        set.and_then(|set| self.xattr_set(set)).unwrap_or_default().iter().map(XattrRecord::decode)
    }

    pub(super) fn xattr_set(&self, set: u32) -> Option<&[[u8; XATTR_BYTES]]> {
        let (first, count) = match self.records::<XATTR_SET_BYTES>(Section::XattrSets, set, 1)? {
            [raw] => (super::format::u32_at(raw, 0), super::format::u32_at(raw, 4)),
            _ => return None,
        };
        self.records(Section::Xattrs, first, count as usize)
    }

    #[inline]
    pub(super) fn node_record(&self, node: NodeId) -> Option<&[u8; NODE_BYTES]> {
        self.records::<NODE_BYTES>(Section::Nodes, node.0, 1)?.first()
    }

    #[inline]
    fn table(&self, dir: NodeId) -> Option<Table> {
        match extra(self.node_record(dir)?) {
            Extra::Table(table) => Some(table),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn all_entries(&self, table: &Table) -> Option<&[[u8; ENTRY_BYTES]]> {
        self.records(Section::Entries, table.first_entry, table.entries as usize)
    }

    /// The entries among which a tag stands if it is there.
    #[inline]
    fn bucket(&self, table: &Table, tag: u32) -> Option<&[[u8; ENTRY_BYTES]]> {
        let entries = self.all_entries(table)?;
        if table.bucket_bits == 0 {
            return Some(entries);
        }
        let bucket = tag >> (32 - u32::from(table.bucket_bits));
        let first = table.first_bucket.checked_add(bucket)?;
        match self.records::<BUCKET_BYTES>(Section::Buckets, first, 2)? {
            [start, end] => entries.get(u32::from_le_bytes(*start) as usize..u32::from_le_bytes(*end) as usize),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn name(&self, span: Span) -> Option<&[u8]> {
        bytes_at(self.section(Section::Names), span)
    }

    fn string(&self, span: Span) -> Option<&[u8]> {
        bytes_at(self.section(Section::Strings), span)
    }

    #[inline]
    fn known(&self, node: u32) -> Option<NodeId> {
        self.node_record(NodeId(node)).map(|_| NodeId(node))
    }

    #[inline]
    pub(super) fn records<const N: usize>(&self, section: Section, first: u32, count: usize) -> Option<&[[u8; N]]> {
        let (records, _) = self.section(section).as_chunks::<N>();
        records.get(first as usize..(first as usize).checked_add(count)?)
    }

    #[inline]
    fn section(&self, section: Section) -> &[u8] {
        &self.map[self.header.section(section)]
    }
}

#[inline]
fn bytes_at(section: &[u8], span: Span) -> Option<&[u8]> {
    let start = span.offset as usize;
    section.get(start..start.checked_add(span.length as usize)?)
}

/// Whether a file can have this name: one that cannot would lead out of its directory.
pub(super) fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= NAME_BYTES_MAX
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

/// The names of a directory.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    index: &'a Index,
    records: &'a [[u8; ENTRY_BYTES]],
}

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a OsStr, NodeId);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (raw, rest) = self.records.split_first()?;
            self.records = rest;
            let entry = EntryRecord::decode(raw);
            let name = self.index.name(entry.name).filter(|name| is_name(name));
            if let (Some(name), Some(node)) = (name, self.index.known(entry.node)) {
                return Some((OsStr::from_bytes(name), node));
            }
        }
    }

    /// Skips without looking, so that a position in a listing means the same whatever is damaged.
    fn nth(&mut self, skipped: usize) -> Option<Self::Item> {
        self.records = self.records.get(skipped..)?;
        self.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.records.len()))
    }
}
