//! What an index holds, in numbers.

use super::format::{Header, Section, VERSION};
use super::record::LayerRecord;

/// What an index holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexSummary {
    /// Version of the format.
    pub version: u32,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// The layers, topmost first.
    pub layers: Vec<LayerRecord>,
    /// Files of every kind; one with several names counts once.
    pub files: u64,
    /// How many of them are directories.
    pub directories: u64,
    /// Names in all directories.
    pub names: u64,
    /// Different sets of extended attributes.
    pub xattr_sets: u64,
    /// Bytes of each section.
    pub sections: Vec<(&'static str, u64)>,
    /// SHA-256 of everything behind the header.
    pub checksum: [u8; 32],
}

impl IndexSummary {
    pub(super) fn new(header: &Header, layers: Vec<LayerRecord>) -> IndexSummary {
        let records = |section| header.records(section) as u64;
        IndexSummary {
            version: VERSION,
            file_bytes: header.file_bytes,
            layers,
            files: records(Section::Nodes),
            directories: u64::from(header.directories),
            names: records(Section::Entries),
            // The first set is the empty one.
            xattr_sets: records(Section::XattrSets).saturating_sub(1),
            sections: Section::ALL.map(|section| (section.name(), header.section(section).len() as u64)).into(),
            checksum: header.body_checksum,
        }
    }
}
