//! The index in place of the lower layers.
//!
//! Owns which questions the index answers: what the lower layers say of a name, and attributes, link targets and extended
//! attributes of what they hold. Must not know the file's format. Invariant: a file of the upper layer is never answered
//! from the index; data never is.

use super::Union;
use super::inode::Inode;
use crate::error::{Error, Result};
use crate::index::{Index, NodeId};
use crate::layer::{Entry, LayerId};
use crate::sys::stat::Stat;
use std::ffi::OsStr;

/// A damaged record of a file whose layers were checked: nothing of it is shown.
const DAMAGED: Error = Error::Os { call: "index", errno: libc::EIO };

impl Union {
    /// The index and an inode's place in it, as long as the lower layers hold what the inode shows.
    pub(super) fn index_of(&self, inode: &Inode) -> Option<(&Index, NodeId)> {
        match inode.in_upper() {
            true => None,
            false => self.index_below(inode),
        }
    }

    /// The index and an inode's place in it, for what lies below the upper layer.
    pub(super) fn index_below(&self, inode: &Inode) -> Option<(&Index, NodeId)> {
        Some((self.index.as_ref()?, inode.index_node?))
    }

    /// What the lower layers say of a name in an indexed directory, topmost first; nothing is allocated for it.
    pub(super) fn index_entries(
        &self,
        dir: &Inode,
        name: &OsStr,
    ) -> Result<Option<impl Iterator<Item = (LayerId, Entry)>>> {
        let Some((index, node)) = self.index_below(dir) else { return Ok(None) };
        let found = index.find(node, name);
        let shown = found.map(|found| index.node(found).ok_or(DAMAGED)).transpose()?;
        let is_dir = shown.is_some_and(|shown| shown.stat.is_dir());
        let leaf = shown.filter(|_| !is_dir).map(|shown| (shown.layer, Entry::Leaf(shown.stat)));
        let merged = found.zip(shown).filter(|_| is_dir);
        let parts = merged.into_iter().flat_map(|(found, shown)| {
            index.parts(found).map(move |part| {
                let stat = Stat { ino: part.ino, ..shown.stat };
                (part.layer, Entry::Dir { stat, marks: part.marks })
            })
        });
        Ok(Some(leaf.into_iter().chain(parts)))
    }

    /// Where the index has what the lower layers show under a name.
    pub(super) fn index_child(&self, dir: &Inode, name: &OsStr) -> Option<NodeId> {
        let (index, node) = self.index_below(dir)?;
        index.find(node, name)
    }

    /// Attributes of what the lower layers hold of an inode, where the index has them.
    pub(super) fn index_stat(&self, inode: &Inode) -> Option<Result<Stat>> {
        let (index, node) = self.index_of(inode)?;
        Some(index.node(node).map(|node| node.stat).ok_or(DAMAGED))
    }
}
