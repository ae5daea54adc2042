//! The records of each section, byte by byte.
//!
//! Owns encoding and decoding. Does no I/O. Invariant: decoding any bytes gives a record or nothing, and never fails otherwise;
//! whether what it refers to exists is for the reader to ask.

use super::format::{u16_at, u32_at, u64_at};
use crate::error::Result;
use crate::layer::{DirMarks, Layer, LayerId};
use crate::sys::stat::{self, Stat, Timestamp};

/// Bytes of a node.
pub const NODE_BYTES: usize = 128;
/// Bytes of an entry of a directory's table.
pub const ENTRY_BYTES: usize = 16;
/// Bytes of a part.
pub const PART_BYTES: usize = 16;
/// Bytes of a layer.
pub const LAYER_BYTES: usize = 64;
/// Bytes of an attribute.
pub const XATTR_BYTES: usize = 16;
/// Bytes of a set of attributes.
pub const XATTR_SET_BYTES: usize = 8;
/// Bytes of a bucket's boundary.
pub const BUCKET_BYTES: usize = 4;

/// What recognises a layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LayerRecord {
    /// UUID of its filesystem, zeros where it has none.
    pub uuid: [u8; 16],
    /// Inode number of its root.
    pub ino: u64,
    /// Change time of its root: a layer that was unpacked again has another.
    pub ctime: Timestamp,
    /// Whether owners and modes in attributes were honoured.
    pub overridden: bool,
}

impl LayerRecord {
    /// The record of a layer as it is now.
    pub fn of(layer: &Layer) -> Result<LayerRecord> {
        let root = stat::stat_fd(layer.root())?;
        Ok(LayerRecord { uuid: layer.uuid(), ino: root.ino, ctime: root.ctime, overridden: layer.is_overridden() })
    }

    /// What tells this layer from another; `None` where they are the same.
    pub fn difference(&self, other: &LayerRecord) -> Option<&'static str> {
        match () {
            () if self.uuid != other.uuid => Some("the filesystem"),
            () if self.ino != other.ino => Some("the inode number of its directory"),
            () if self.ctime != other.ctime => Some("the change time of its directory"),
            () if self.overridden != other.overridden => Some("xattr_permissions"),
            () => None,
        }
    }

    pub(super) fn encode(&self) -> [u8; LAYER_BYTES] {
        let mut bytes = [0; LAYER_BYTES];
        bytes[..16].copy_from_slice(&self.uuid);
        bytes[16..24].copy_from_slice(&self.ino.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.ctime.seconds.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.ctime.nanoseconds.to_le_bytes());
        bytes[36] = u8::from(self.overridden);
        bytes
    }

    pub(super) fn decode(bytes: &[u8; LAYER_BYTES]) -> LayerRecord {
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[..16]);
        let ctime = Timestamp { seconds: u64_at(bytes, 24) as i64, nanoseconds: u32_at(bytes, 32) };
        LayerRecord { uuid, ino: u64_at(bytes, 16), ctime, overridden: bytes[36] != 0 }
    }
}

/// One layer's share of a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// The layer.
    pub layer: LayerId,
    /// Inode number of its directory.
    pub ino: u64,
    /// The marks of its directory.
    pub marks: DirMarks,
}

const OPAQUE: u8 = 1;
const XATTR_WHITEOUTS: u8 = 2;

impl Part {
    pub(super) fn encode(&self) -> [u8; PART_BYTES] {
        let mut bytes = [0; PART_BYTES];
        bytes[..8].copy_from_slice(&self.ino.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.layer.0.to_le_bytes());
        for (mark, bit) in [(self.marks.opaque, OPAQUE), (self.marks.xattr_whiteouts, XATTR_WHITEOUTS)] {
            bytes[10] |= if mark { bit } else { 0 };
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8; PART_BYTES]) -> Part {
        let marks = DirMarks { opaque: bytes[10] & OPAQUE != 0, xattr_whiteouts: bytes[10] & XATTR_WHITEOUTS != 0 };
        Part { layer: LayerId(u16_at(bytes, 8)), ino: u64_at(bytes, 0), marks }
    }
}

/// Where bytes lie in the strings or the names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    /// From the start of the section.
    pub offset: u32,
    /// Bytes.
    pub length: u32,
}

/// Where a directory's table lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Table {
    /// Its first entry.
    pub first_entry: u32,
    /// How many it has.
    pub entries: u32,
    /// Its first bucket boundary.
    pub first_bucket: u32,
    /// Its topmost part.
    pub first_part: u32,
    /// How many it has.
    pub parts: u16,
    /// It has two to the power of this many buckets, and one boundary more; 0: no boundaries.
    pub bucket_bits: u8,
}

impl Table {
    /// How many bucket boundaries it has.
    pub fn boundaries(&self) -> usize {
        match self.bucket_bits {
            0 => 0,
            bits => (1 << bits) + 1,
        }
    }
}

/// Buckets of one directory at the most, as a power of two.
pub const BUCKET_BITS_MAX: u8 = 31;

/// What a node has besides its attributes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extra {
    /// Nothing.
    Nothing,
    /// A link's target.
    Target(Span),
    /// A directory's table.
    Table(Table),
}

/// One file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeRecord {
    /// Its attributes; `dev` is not stored.
    pub stat: Stat,
    /// The layer that shows it.
    pub layer: LayerId,
    /// Its set of attributes; 0: it has none.
    pub xattrs: u32,
    /// The rest.
    pub extra: Extra,
}

const EXTRA: usize = 108;
const NANOSECONDS_MAX: u32 = 999_999_999;

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

impl NodeRecord {
    pub(super) fn encode(&self) -> [u8; NODE_BYTES] {
        let mut bytes = [0; NODE_BYTES];
        let stat = &self.stat;
        for (at, value) in [(0, stat.ino), (8, stat.size), (16, stat.blocks), (24, stat.rdev)] {
            put(&mut bytes, at, &value.to_le_bytes());
        }
        for (nth, time) in [stat.atime, stat.mtime, stat.ctime, stat.btime].into_iter().enumerate() {
            put(&mut bytes, 32 + 8 * nth, &time.seconds.to_le_bytes());
            put(&mut bytes, 64 + 4 * nth, &time.nanoseconds.to_le_bytes());
        }
        for (nth, value) in [stat.mode, stat.uid, stat.gid, stat.nlink, stat.blksize].into_iter().enumerate() {
            put(&mut bytes, 80 + 4 * nth, &value.to_le_bytes());
        }
        put(&mut bytes, 100, &self.xattrs.to_le_bytes());
        put(&mut bytes, 104, &self.layer.0.to_le_bytes());
        match &self.extra {
            Extra::Nothing => {}
            Extra::Target(span) => {
                put(&mut bytes, EXTRA, &span.offset.to_le_bytes());
                put(&mut bytes, EXTRA + 4, &span.length.to_le_bytes());
            }
            Extra::Table(table) => put_table(&mut bytes, table),
        }
        bytes
    }

    #[inline]
    pub(super) fn decode(bytes: &[u8; NODE_BYTES]) -> NodeRecord {
        let time = |nth: usize| Timestamp {
            seconds: u64_at(bytes, 32 + 8 * nth) as i64,
            // More would be an invalid time to whoever computes with it.
            nanoseconds: u32_at(bytes, 64 + 4 * nth).min(NANOSECONDS_MAX),
        };
        let stat = Stat {
            dev: 0,
            ino: u64_at(bytes, 0),
            size: u64_at(bytes, 8),
            blocks: u64_at(bytes, 16),
            rdev: u64_at(bytes, 24),
            mode: u32_at(bytes, 80),
            uid: u32_at(bytes, 84),
            gid: u32_at(bytes, 88),
            nlink: u32_at(bytes, 92),
            blksize: u32_at(bytes, 96),
            atime: time(0),
            mtime: time(1),
            ctime: time(2),
            btime: time(3),
        };
        NodeRecord { stat, layer: LayerId(u16_at(bytes, 104)), xattrs: u32_at(bytes, 100), extra: extra(bytes) }
    }
}

/// Writes a directory's table into its node.
pub fn put_table(node: &mut [u8], table: &Table) {
    let numbers = [table.first_entry, table.entries, table.first_bucket, table.first_part];
    for (nth, value) in numbers.into_iter().enumerate() {
        put(node, EXTRA + 4 * nth, &value.to_le_bytes());
    }
    put(node, EXTRA + 16, &table.parts.to_le_bytes());
    node[EXTRA + 18] = table.bucket_bits;
}

/// What a node has besides its attributes.
#[inline]
pub fn extra(node: &[u8; NODE_BYTES]) -> Extra {
    match u32_at(node, 80) & libc::S_IFMT {
        libc::S_IFDIR => Extra::Table(Table {
            first_entry: u32_at(node, EXTRA),
            entries: u32_at(node, EXTRA + 4),
            first_bucket: u32_at(node, EXTRA + 8),
            first_part: u32_at(node, EXTRA + 12),
            parts: u16_at(node, EXTRA + 16),
            bucket_bits: node[EXTRA + 18].min(BUCKET_BITS_MAX),
        }),
        libc::S_IFLNK => Extra::Target(Span { offset: u32_at(node, EXTRA), length: u32_at(node, EXTRA + 4) }),
        _ => Extra::Nothing,
    }
}

/// One name of a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryRecord {
    /// Upper half of the name's hash.
    pub tag: u32,
    /// The name, in the names.
    pub name: Span,
    /// The file.
    pub node: u32,
}

impl EntryRecord {
    pub(super) fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        for (nth, value) in [self.tag, self.name.offset, self.node, self.name.length].into_iter().enumerate() {
            put(&mut bytes, 4 * nth, &value.to_le_bytes());
        }
        bytes
    }

    #[inline]
    pub(super) fn decode(bytes: &[u8; ENTRY_BYTES]) -> EntryRecord {
        let name = Span { offset: u32_at(bytes, 4), length: u32_at(bytes, 12) };
        EntryRecord { tag: u32_at(bytes, 0), name, node: u32_at(bytes, 8) }
    }
}

/// One attribute; both lie in the strings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct XattrRecord {
    /// Its name.
    pub name: Span,
    /// Its value.
    pub value: Span,
}

impl XattrRecord {
    pub(super) fn encode(&self) -> [u8; XATTR_BYTES] {
        let mut bytes = [0; XATTR_BYTES];
        for (nth, span) in [self.name, self.value].into_iter().enumerate() {
            put(&mut bytes, 8 * nth, &span.offset.to_le_bytes());
            put(&mut bytes, 8 * nth + 4, &span.length.to_le_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8; XATTR_BYTES]) -> XattrRecord {
        let span = |at| Span { offset: u32_at(bytes, at), length: u32_at(bytes, at + 4) };
        XattrRecord { name: span(0), value: span(8) }
    }
}
