//! The header: what an index is, and where its sections lie.
//!
//! Owns the order of the file. Must not know what a record means. Invariant: after `Header::parse` every section lies inside
//! the file and holds whole records.

use sha2::{Digest, Sha256};
use std::ops::Range;

/// The version that is written and read.
pub const VERSION: u32 = 1;
/// The first bytes of an index.
pub const MAGIC: [u8; 8] = *b"LaminaIx";
/// Bytes of the header.
pub const HEADER_BYTES: usize = 256;
/// Sections begin at multiples of this: records of 128 bytes then lie in two cache lines, never three.
pub const ALIGNMENT: usize = 64;

const SECTION_TABLE: usize = 32;
const SECTION_TABLE_STEP: usize = 16;
const BODY_CHECKSUM: usize = SECTION_TABLE + Section::ALL.len() * SECTION_TABLE_STEP;
const HEADER_CHECKSUM: usize = HEADER_BYTES - 32;

/// The parts of the file, in their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Section {
    /// One record a layer, topmost first.
    Layers,
    /// One record a file.
    Nodes,
    /// Which layers' directories merge.
    Parts,
    /// Where in a large directory's table a hash begins.
    Buckets,
    /// The tables of all directories.
    Entries,
    /// The names in them.
    Names,
    /// Where a set of attributes begins and how many it has.
    XattrSets,
    /// One record an attribute.
    Xattrs,
    /// Targets of links, names and values of attributes.
    Strings,
}

impl Section {
    /// All, in the order of the file.
    pub const ALL: [Section; 9] = [
        Section::Layers,
        Section::Nodes,
        Section::Parts,
        Section::Buckets,
        Section::Entries,
        Section::Names,
        Section::XattrSets,
        Section::Xattrs,
        Section::Strings,
    ];

    /// Its name, as `index show` prints it.
    pub fn name(self) -> &'static str {
        match self {
            Section::Layers => "layers",
            Section::Nodes => "nodes",
            Section::Parts => "parts",
            Section::Buckets => "buckets",
            Section::Entries => "entries",
            Section::Names => "names",
            Section::XattrSets => "xattr_sets",
            Section::Xattrs => "xattrs",
            Section::Strings => "strings",
        }
    }

    /// Bytes of one record.
    pub fn record_bytes(self) -> usize {
        match self {
            Section::Layers => 64,
            Section::Nodes => 128,
            Section::Parts | Section::Entries | Section::Xattrs => 16,
            Section::XattrSets => 8,
            Section::Buckets => 4,
            Section::Names | Section::Strings => 1,
        }
    }
}

/// What keeps a header from being used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderError {
    /// The first bytes are not those of an index.
    NotAnIndex,
    /// Written by another version.
    OtherVersion(u32),
    /// The file is shorter or longer than the header says.
    Truncated { expected: u64 },
    /// Anything else.
    Damaged(&'static str),
}

/// The header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// How many of the nodes are directories.
    pub directories: u32,
    /// Where the sections lie, in the order of `Section::ALL`.
    pub sections: [Range<usize>; Section::ALL.len()],
    /// SHA-256 of everything behind the header.
    pub body_checksum: [u8; 32],
}

impl Header {
    /// Lays out sections of these sizes behind each other.
    pub fn lay_out(sizes: [usize; Section::ALL.len()], directories: u32) -> Header {
        let mut end = HEADER_BYTES;
        let sections = sizes.map(|size| {
            let start = end.next_multiple_of(ALIGNMENT);
            end = start + size;
            start..end
        });
        Header { file_bytes: end as u64, directories, sections, body_checksum: [0; 32] }
    }

    /// Where a section lies.
    #[inline]
    pub fn section(&self, section: Section) -> Range<usize> {
        self.sections[section as usize].clone()
    }

    /// How many records a section has.
    pub fn records(&self, section: Section) -> usize {
        self.section(section).len() / section.record_bytes()
    }

    /// The bytes of the header.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(16, &self.file_bytes.to_le_bytes());
        put(24, &self.directories.to_le_bytes());
        put(28, &(Section::ALL.len() as u32).to_le_bytes());
        for (at, range) in self.sections.iter().enumerate() {
            let at = SECTION_TABLE + at * SECTION_TABLE_STEP;
            put(at, &(range.start as u64).to_le_bytes());
            put(at + 8, &(range.len() as u64).to_le_bytes());
        }
        put(BODY_CHECKSUM, &self.body_checksum);
        seal(&mut bytes);
        bytes
    }

    /// Reads and checks the header of a file of these bytes.
    pub fn parse(file: &[u8]) -> Result<Header, HeaderError> {
        if file.get(..MAGIC.len()) != Some(&MAGIC) {
            return Err(HeaderError::NotAnIndex);
        }
        let Some(header) = file.first_chunk::<HEADER_BYTES>() else {
            return Err(HeaderError::Truncated { expected: HEADER_BYTES as u64 });
        };
        // Before the checksum, which another version may keep elsewhere.
        let version = u32_at(header, 8);
        if version != VERSION {
            return Err(HeaderError::OtherVersion(version));
        }
        if checksum(&header[..HEADER_CHECKSUM]) != header[HEADER_CHECKSUM..] {
            return Err(HeaderError::Damaged("the checksum of its header is wrong"));
        }
        let file_bytes = u64_at(header, 16);
        if file_bytes != file.len() as u64 {
            return Err(HeaderError::Truncated { expected: file_bytes });
        }
        let mut sections = [const { 0..0 }; Section::ALL.len()];
        let mut free = HEADER_BYTES;
        for (section, range) in Section::ALL.iter().zip(&mut sections) {
            let at = SECTION_TABLE + *section as usize * SECTION_TABLE_STEP;
            *range = section_range(u64_at(header, at), u64_at(header, at + 8), file.len())
                .filter(|range| range.start >= free && range.start.is_multiple_of(ALIGNMENT))
                .filter(|range| range.len().is_multiple_of(section.record_bytes()))
                .ok_or(HeaderError::Damaged("a section lies where it cannot"))?;
            free = range.end;
        }
        let mut body_checksum = [0; 32];
        body_checksum.copy_from_slice(&header[BODY_CHECKSUM..BODY_CHECKSUM + 32]);
        Ok(Header { file_bytes, directories: u32_at(header, 24), sections, body_checksum })
    }
}

fn section_range(start: u64, bytes: u64, file_bytes: usize) -> Option<Range<usize>> {
    let start = usize::try_from(start).ok()?;
    let end = start.checked_add(usize::try_from(bytes).ok()?)?;
    (end <= file_bytes).then_some(start..end)
}

/// Writes the header's own checksum into it.
pub fn seal(header: &mut [u8; HEADER_BYTES]) {
    let sum = checksum(&header[..HEADER_CHECKSUM]);
    header[HEADER_CHECKSUM..].copy_from_slice(&sum);
}

/// SHA-256 of what comes in pieces.
pub fn checksum_of<E>(feed: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>) -> Result<[u8; 32], E> {
    let mut hasher = Sha256::new();
    feed(&mut |bytes| hasher.update(bytes))?;
    Ok(hasher.finalize().into())
}

/// SHA-256.
pub fn checksum(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// A little-endian number; `at` is a constant inside the record.
#[inline]
pub fn u16_at<const N: usize>(record: &[u8; N], at: usize) -> u16 {
    u16::from_le_bytes([record[at], record[at + 1]])
}

/// A little-endian number; `at` is a constant inside the record.
#[inline]
pub fn u32_at<const N: usize>(record: &[u8; N], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&record[at..at + 4]);
    u32::from_le_bytes(bytes)
}

/// A little-endian number; `at` is a constant inside the record.
#[inline]
pub fn u64_at<const N: usize>(record: &[u8; N], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&record[at..at + 8]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_back() {
        let mut header = Header::lay_out([64, 128, 16, 0, 32, 7, 8, 0, 9], 1);
        header.body_checksum = [7; 32];
        let mut file = vec![0; header.file_bytes as usize];
        file[..HEADER_BYTES].copy_from_slice(&header.encode());
        assert_eq!(Header::parse(&file), Ok(header));
    }

    #[test]
    fn sections_that_overlap_or_leave_the_file_are_refused() {
        let good = Header::lay_out([64, 128, 16, 0, 32, 7, 8, 0, 9], 1);
        let refused = |change: &dyn Fn(&mut Header)| {
            let mut header = good.clone();
            change(&mut header);
            let mut file = vec![0; good.file_bytes as usize];
            file[..HEADER_BYTES].copy_from_slice(&header.encode());
            assert!(matches!(Header::parse(&file), Err(HeaderError::Damaged(_))), "{header:?}");
        };
        refused(&|header| header.sections[1] = 256..384);
        refused(&|header| header.sections[8].end += 1);
        refused(&|header| header.sections[0] = 0..64);
        refused(&|header| header.sections[1].end -= 1);
        refused(&|header| header.sections[8] = usize::MAX - 63..usize::MAX);
    }
}
