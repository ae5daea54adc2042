//! What can be wrong with an archive, in sentences.
//!
//! Invariant: a name out of an archive is printed escaped and cut, never as it is.

use std::fmt;

/// Characters of a name that an error shows.
const SHOWN_MAX: usize = 200;

/// A name as the archive has it, for an error.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Keeps what an error may show.
    pub fn new(bytes: &[u8]) -> Self {
        Name(bytes[..bytes.len().min(SHOWN_MAX * 4)].into())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.0);
        let shown: String = text.chars().take(SHOWN_MAX).collect();
        let more = if shown.len() < text.len() { "..." } else { "" };
        write!(out, "\"{}{more}\"", shown.escape_debug())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// What is wrong with one entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences say it")]
pub enum Fault {
    #[error("its header's {0} is no number")]
    Number(&'static str),
    #[error("its {0} is larger than Linux knows")]
    TooLarge(&'static str),
    #[error("its long name or PAX header has {bytes} bytes and {max} is the most")]
    Oversized { bytes: u64, max: u64 },
    #[error("its PAX header is malformed at byte {at}")]
    Records { at: usize },
    #[error("its name or link target holds a zero byte or is empty")]
    Text,
    #[error(
        "its extended attribute {name} is longer than Linux takes (name {name_max} bytes, value {value_max} bytes)"
    )]
    Attribute { name: Name, name_max: usize, value_max: usize },
    #[error("its map of data does not fit its size")]
    SparseMap,
    #[error("it is of type '{}', which no layer may hold", char::from(*.0).escape_default())]
    Type(u8),
}

impl Fault {
    /// Names the entry.
    pub fn at(self, name: Name) -> ArchiveError {
        ArchiveError::Entry { name, fault: self }
    }
}

/// Why an archive cannot be read on.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences say it")]
pub enum ArchiveError {
    #[error("{0}")]
    Read(#[source] std::io::Error),
    #[error("the archive ends in the middle of an entry: it was cut off")]
    Truncated,
    #[error("the header of {name} has a wrong checksum: this is no tar archive, or it is damaged")]
    Checksum { name: Name },
    #[error("entry {name}: {fault}")]
    Entry { name: Name, fault: Fault },
    #[error("{0}")]
    Unnamed(Fault),
}

impl From<Fault> for ArchiveError {
    fn from(fault: Fault) -> Self {
        ArchiveError::Unnamed(fault)
    }
}

impl ArchiveError {
    /// Names the entry where that was not done yet.
    pub fn or_at(self, name: &[u8]) -> Self {
        match self {
            ArchiveError::Unnamed(fault) => fault.at(Name::new(name)),
            other => other,
        }
    }
}
