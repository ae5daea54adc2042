//! Reading all of an index, once: what `index verify` does.
//!
//! Owns the rules that a whole index keeps. Invariant: linear in the file's size, whatever the file says.

use super::error::IndexError;
use super::format::{Section, u32_at};
use super::hash;
use super::record::{
    BUCKET_BYTES, ENTRY_BYTES, EntryRecord, Extra, NODE_BYTES, NodeRecord, PART_BYTES, Part, Table, XATTR_SET_BYTES,
    XattrRecord,
};
use super::view::{Index, NodeId, is_name};
use std::path::Path;

type Checked = Result<(), &'static str>;

impl Index {
    /// Checks everything: the checksum, every reference, and that the directories form a tree. `path` is for errors.
    pub fn verify(&self, path: &Path) -> Result<(), IndexError> {
        self.check_sum(path)?;
        self.check_content().map_err(|what| IndexError::Damaged { path: path.to_owned(), what })
    }

    pub(super) fn check_content(&self) -> Checked {
        let layers = self.header().records(Section::Layers);
        let nodes = self.records::<NODE_BYTES>(Section::Nodes, 0, self.header().records(Section::Nodes));
        let nodes = nodes.ok_or("its files are not numbered")?;
        self.check_sets()?;
        let mut named = vec![false; nodes.len()];
        let (mut entries, mut parts, mut directories) = (0, 0, 0);
        for raw in nodes {
            let node = NodeRecord::decode(raw);
            if !(1..=layers).contains(&usize::from(node.layer.0)) {
                return Err("a file lies in no layer");
            }
            if node.xattrs as usize >= self.header().records(Section::XattrSets) {
                return Err("a file has attributes that are not there");
            }
            match node.extra {
                Extra::Nothing => {}
                Extra::Target(span) => drop(self.target(span).ok_or("a link has no target")?),
                Extra::Table(table) => {
                    directories += 1;
                    // Shared tables would make the pass longer than the file.
                    entries += table.entries as usize;
                    parts += usize::from(table.parts);
                    let (all_entries, all_parts) = (Section::Entries, Section::Parts);
                    if entries > self.header().records(all_entries) || parts > self.header().records(all_parts) {
                        return Err("directories share their tables");
                    }
                    self.check_parts(&table, layers)?;
                    self.check_table(&table, nodes, &mut named)?;
                }
            }
        }
        if directories != self.header().directories {
            return Err("directories are miscounted");
        }
        if named.first() != Some(&false) || named[1..].contains(&false) {
            return Err("a file has no name, or the root has one");
        }
        self.check_tree(directories as usize)
    }

    fn check_sets(&self) -> Checked {
        let sets = self.header().records(Section::XattrSets);
        let sets = self.records::<XATTR_SET_BYTES>(Section::XattrSets, 0, sets).unwrap_or_default();
        if sets.first().is_none_or(|none| u32_at(none, 4) != 0) {
            return Err("the empty set of attributes is not there");
        }
        let mut expected = 0;
        for (set, number) in sets.iter().zip(0..) {
            let xattrs = self.xattr_set(number).ok_or("a set of attributes is not there")?;
            if u32_at(set, 0) != expected {
                return Err("sets of attributes do not follow each other");
            }
            expected += xattrs.len() as u32;
            let mut before: Option<&[u8]> = None;
            for xattr in xattrs.iter().map(XattrRecord::decode) {
                let name = self.xattr_name(xattr.name).ok_or("an attribute has no name")?;
                self.xattr_value(xattr.value).ok_or("an attribute has no value")?;
                if before.is_some_and(|before| before >= name) {
                    return Err("attributes are out of order");
                }
                before = Some(name);
            }
        }
        Ok(())
    }

    fn check_parts(&self, table: &Table, layers: usize) -> Checked {
        let parts = self.records::<PART_BYTES>(Section::Parts, table.first_part, usize::from(table.parts));
        let mut above = 0;
        for part in parts.filter(|parts| !parts.is_empty()).ok_or("a directory lies in no layer")? {
            let layer = usize::from(Part::decode(part).layer.0);
            if layer <= above || layer > layers {
                return Err("the layers of a directory are out of order");
            }
            above = layer;
        }
        Ok(())
    }

    fn check_table(&self, table: &Table, nodes: &[[u8; NODE_BYTES]], named: &mut [bool]) -> Checked {
        let entries = self.all_entries(table).ok_or("a directory's table is not there")?;
        let mut before: Option<(u32, &[u8])> = None;
        for raw in entries {
            let entry = EntryRecord::decode(raw);
            let name = self.name(entry.name).filter(|name| is_name(name)).ok_or("a name is none")?;
            if entry.tag != hash::tag(name) || before.is_some_and(|before| before >= (entry.tag, name)) {
                return Err("a directory's table is out of order");
            }
            before = Some((entry.tag, name));
            let node = nodes.get(entry.node as usize).ok_or("a name leads to no file")?;
            let seen = std::mem::replace(&mut named[entry.node as usize], true);
            if seen && matches!(super::record::extra(node), Extra::Table(_)) {
                return Err("a directory has two names");
            }
        }
        self.check_buckets(table, entries)
    }

    fn check_buckets(&self, table: &Table, entries: &[[u8; ENTRY_BYTES]]) -> Checked {
        let Some(count) = table.boundaries().checked_sub(1) else { return Ok(()) };
        let wrong = "the buckets of a directory are wrong";
        if count > 2 * entries.len() {
            return Err(wrong);
        }
        let all = self.records::<BUCKET_BYTES>(Section::Buckets, table.first_bucket, count + 1).ok_or(wrong)?;
        let mut at = 0;
        for (bucket, pair) in all.windows(2).enumerate() {
            let bounds = (u32::from_le_bytes(pair[0]) as usize, u32::from_le_bytes(pair[1]) as usize);
            let inside = |raw: &[u8; ENTRY_BYTES]| {
                (EntryRecord::decode(raw).tag >> (32 - u32::from(table.bucket_bits))) as usize == bucket
            };
            if bounds.0 != at || !entries.get(bounds.0..bounds.1).is_some_and(|entries| entries.iter().all(inside)) {
                return Err(wrong);
            }
            at = bounds.1;
        }
        if at == entries.len() { Ok(()) } else { Err(wrong) }
    }

    /// Each directory has one name at the most, so reaching all of them from the root leaves none in a circle.
    fn check_tree(&self, directories: usize) -> Checked {
        let mut pending = vec![self.root()];
        let mut reached = 0;
        while let Some(dir) = pending.pop() {
            reached += 1;
            let is_dir = |node: &NodeId| self.node(*node).is_some_and(|node| node.stat.is_dir());
            pending.extend(self.entries(dir).map(|(_, node)| node).filter(is_dir));
        }
        match reached == directories {
            true => Ok(()),
            false => Err("a directory lies outside the root"),
        }
    }
}
