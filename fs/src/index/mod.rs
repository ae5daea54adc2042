//! The merged view of layers that do not change, in one file that is mapped into memory.
//!
//! In reading order: `format` says which byte means what, `hash` where a name stands, `build` writes, `view` reads, `check`
//! reads everything. Must not know how layers combine: who feeds the writer does. Invariant: a file that does not hold
//! what it should is an error or shows nothing; it is never believed, followed in circles or read beyond its end.
//!
//! The bytes are described in docs/format.md.

mod build;
mod check;
mod error;
mod format;
mod hash;
mod record;
mod summary;
mod view;

#[cfg(test)]
mod tests;

pub use crate::sys::stat::{Stat, Timestamp};
pub use build::{Content, IndexWriter};
pub use error::IndexError;
pub use format::{Section, VERSION};
pub use record::{LayerRecord, Part};
pub use summary::IndexSummary;
pub use view::{Entries, Index, Node, NodeId};
