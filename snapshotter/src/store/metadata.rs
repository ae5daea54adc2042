//! The tables of the store, and what a transaction over them can do.
//!
//! Owns the schema. Must not know directories. Invariants: one write transaction a change, durable when it returns; every
//! record is reachable by number and by name, and the two agree.

use crate::error::{Error, Result};
use crate::snapshot::{Snapshot, Space};
use parking_lot::RwLock;
use redb::{
    Database, MultimapTable, MultimapTableDefinition, ReadOnlyMultimapTable, ReadOnlyTable, ReadableDatabase as _,
    ReadableMultimapTable, ReadableTable, Table, TableDefinition, WriteTransaction,
};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What this program reads and writes.
pub const SCHEMA: u64 = 1;

const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");
const SNAPSHOTS: TableDefinition<u64, &[u8]> = TableDefinition::new("snapshots");
const NAMES: TableDefinition<(&str, &str), u64> = TableDefinition::new("names");
const CHILDREN: MultimapTableDefinition<u64, u64> = MultimapTableDefinition::new("children");
const CONTENTS: MultimapTableDefinition<u64, u64> = MultimapTableDefinition::new("contents");
const CHAINS: MultimapTableDefinition<&str, u64> = MultimapTableDefinition::new("chains");
pub(super) const IMAGES: TableDefinition<&str, &[u8]> = TableDefinition::new("images");

const SCHEMA_NUMBER: &str = "schema";
const NEXT_ID: &str = "next-id";

/// The open tables.
#[derive(Debug)]
pub struct Metadata {
    file: PathBuf,
    // None between a failure of the disk and the next use.
    database: RwLock<Option<Database>>,
}

impl Metadata {
    /// Opens or creates the file.
    ///
    /// # Errors
    /// [`Error::NewerSchema`]; [`Error::Metadata`].
    pub fn open(root: &Path, file: &Path) -> Result<Metadata> {
        let database = RwLock::new(Some(Database::create(file)?));
        let metadata = Metadata { file: file.to_owned(), database };
        let found = metadata.write(|change| {
            change.images()?;
            let mut numbers = change.transaction.open_table(NUMBERS)?;
            let found = numbers.get(SCHEMA_NUMBER)?.map(|number| number.value());
            if found.is_none() {
                numbers.insert(SCHEMA_NUMBER, SCHEMA)?;
            }
            Ok(found.unwrap_or(SCHEMA))
        })?;
        match found > SCHEMA {
            true => Err(Error::NewerSchema { root: root.to_owned(), found, known: SCHEMA }),
            false => Ok(metadata),
        }
    }

    /// Looks at one moment of the tables.
    pub fn read<T>(&self, look: impl FnOnce(&View) -> Result<T>) -> Result<T> {
        self.with(|database| {
            let transaction = database.begin_read()?;
            let view = View {
                snapshots: transaction.open_table(SNAPSHOTS)?,
                names: transaction.open_table(NAMES)?,
                children: transaction.open_multimap_table(CHILDREN)?,
                contents: transaction.open_multimap_table(CONTENTS)?,
                chains: transaction.open_multimap_table(CHAINS)?,
                images: transaction.open_table(IMAGES)?,
            };
            look(&view)
        })
    }

    /// Changes the tables: all of it or, after an error, nothing. Durable when it returns.
    pub fn write<T>(&self, apply: impl FnOnce(&Change) -> Result<T>) -> Result<T> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            let change = Change { transaction };
            match apply(&change) {
                Ok(answer) => {
                    change.transaction.commit()?;
                    Ok(answer)
                }
                Err(error) => {
                    change.transaction.abort()?;
                    Err(error)
                }
            }
        })
    }

    /// The first number that was never given out, as far as the tables know.
    pub fn next_id(&self) -> Result<u64> {
        self.with(|database| {
            let transaction = database.begin_read()?;
            let numbers = transaction.open_table(NUMBERS)?;
            Ok(numbers.get(NEXT_ID)?.map_or(1, |number| number.value()))
        })
    }

    /// After an error of the disk, such as a full one, the database answers nothing until it is opened anew. It then goes back to
    /// the last change that was answered.
    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
        let answer = loop {
            if let Some(database) = self.database.read().as_ref() {
                break work(database);
            }
            let mut database = self.database.write();
            if database.is_none() {
                *database = Some(Database::create(&self.file)?);
            }
        };
        if let Err(Error::Metadata(error)) = &answer
            && matches!(error.as_ref(), redb::Error::Io(_) | redb::Error::PreviousIo)
        {
            tracing::error!(%error, "the metadata could not be written or read; it will be opened anew");
            drop(self.database.write().take());
        }
        answer
    }
}

#[cfg(test)]
impl Metadata {
    /// Pretends that another release wrote the file.
    pub fn set_schema(&self, schema: u64) {
        let database = self.database.read();
        let transaction = database.as_ref().unwrap().begin_write().unwrap();
        transaction.open_table(NUMBERS).unwrap().insert(SCHEMA_NUMBER, schema).unwrap();
        transaction.commit().unwrap();
    }
}

/// One moment of the tables.
pub struct View {
    pub(super) snapshots: ReadOnlyTable<u64, &'static [u8]>,
    names: ReadOnlyTable<(&'static str, &'static str), u64>,
    children: ReadOnlyMultimapTable<u64, u64>,
    contents: ReadOnlyMultimapTable<u64, u64>,
    chains: ReadOnlyMultimapTable<&'static str, u64>,
    pub(super) images: ReadOnlyTable<&'static str, &'static [u8]>,
}

impl View {
    pub fn snapshot(&self, id: u64) -> Result<Snapshot> {
        by_id(&self.snapshots, id)
    }

    pub fn snapshot_if_any(&self, id: u64) -> Result<Option<Snapshot>> {
        self.snapshots.get(id)?.map(|record| decode(record.value())).transpose()
    }

    pub fn find(&self, space: &Space, key: &str) -> Result<Option<Snapshot>> {
        by_name(&self.names, &self.snapshots, space, key)
    }

    /// All snapshots, or those of one space, in the order of their numbers.
    pub fn list(&self, space: Option<&Space>) -> Result<Vec<Snapshot>> {
        let mut found = Vec::new();
        for entry in self.snapshots.iter()? {
            let snapshot: Snapshot = decode(entry?.1.value())?;
            if space.is_none_or(|space| *space == snapshot.space) {
                found.push(snapshot);
            }
        }
        Ok(found)
    }

    pub fn has_children(&self, id: u64) -> Result<bool> {
        Ok(!self.children.get(id)?.is_empty())
    }

    pub fn with_chain(&self, chain: &str) -> Result<Vec<Snapshot>> {
        values(&self.chains, chain)?.into_iter().map(|id| self.snapshot(id)).collect()
    }

    /// Everything that the tables beside the records say, as lines that fsck can compare.
    pub fn references(&self) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        for entry in self.names.iter()? {
            let (name, id) = entry?;
            let (space, key) = name.value();
            found.insert(format!("name {key:?} of {space} is snapshot {}", id.value()));
        }
        for (word, table) in [("parent", &self.children), ("content", &self.contents)] {
            for entry in table.iter()? {
                let (from, ids) = entry?;
                for id in ids {
                    found.insert(format!("{word} {} belongs to snapshot {}", from.value(), id?.value()));
                }
            }
        }
        for entry in self.chains.iter()? {
            let (chain, ids) = entry?;
            for id in ids {
                found.insert(format!("chain {} belongs to snapshot {}", chain.value(), id?.value()));
            }
        }
        Ok(found)
    }

    /// What [`View::references`] must say, by the records.
    pub fn expected_references(snapshots: &[Snapshot]) -> BTreeSet<String> {
        let mut expected = BTreeSet::new();
        for Snapshot { id, space, key, content, parent, chain_id, .. } in snapshots {
            expected.insert(format!("name {key:?} of {} is snapshot {id}", space.as_str()));
            expected.insert(format!("content {content} belongs to snapshot {id}"));
            expected.extend(parent.map(|parent| format!("parent {parent} belongs to snapshot {id}")));
            expected.extend(chain_id.map(|chain| format!("chain {chain} belongs to snapshot {id}")));
        }
        expected
    }

    /// Whether any snapshot shows this content.
    pub fn is_content_used(&self, content: u64) -> Result<bool> {
        Ok(!self.contents.get(content)?.is_empty())
    }

    /// The snapshot and all below it, top first.
    pub fn chain_of(&self, top: Snapshot) -> Result<Vec<Snapshot>> {
        let mut chain = vec![top];
        while let Some(parent) = chain.last().and_then(|snapshot| snapshot.parent) {
            chain.push(self.snapshot(parent)?);
        }
        Ok(chain)
    }
}

/// A change under way.
pub struct Change {
    transaction: WriteTransaction,
}

impl Change {
    fn snapshots(&self) -> Result<Table<'_, u64, &'static [u8]>> {
        Ok(self.transaction.open_table(SNAPSHOTS)?)
    }

    fn names(&self) -> Result<Table<'_, (&'static str, &'static str), u64>> {
        Ok(self.transaction.open_table(NAMES)?)
    }

    fn multimap<K: redb::Key + 'static>(
        &self,
        definition: MultimapTableDefinition<K, u64>,
    ) -> Result<MultimapTable<'_, K, u64>> {
        Ok(self.transaction.open_multimap_table(definition)?)
    }

    /// The table of images.
    pub fn images(&self) -> Result<Table<'_, &'static str, &'static [u8]>> {
        // All tables exist from the first transaction on, so that a reader needs no case for a missing one.
        drop((self.snapshots()?, self.names()?));
        drop((self.multimap(CHILDREN)?, self.multimap(CONTENTS)?, self.multimap(CHAINS)?));
        Ok(self.transaction.open_table(IMAGES)?)
    }

    pub fn snapshot(&self, id: u64) -> Result<Snapshot> {
        by_id(&self.snapshots()?, id)
    }

    pub fn find(&self, space: &Space, key: &str) -> Result<Option<Snapshot>> {
        by_name(&self.names()?, &self.snapshots()?, space, key)
    }

    pub fn has_children(&self, id: u64) -> Result<bool> {
        Ok(!self.multimap(CHILDREN)?.get(id)?.is_empty())
    }

    pub fn with_chain(&self, chain: &str) -> Result<Vec<Snapshot>> {
        values(&self.multimap(CHAINS)?, chain)?.into_iter().map(|id| self.snapshot(id)).collect()
    }

    pub fn with_content(&self, content: u64) -> Result<Vec<Snapshot>> {
        values(&self.multimap(CONTENTS)?, content)?.into_iter().map(|id| self.snapshot(id)).collect()
    }

    pub fn is_content_used(&self, content: u64) -> Result<bool> {
        Ok(!self.multimap(CONTENTS)?.get(content)?.is_empty())
    }

    /// Puts a new record into every table.
    pub fn insert(&self, snapshot: &Snapshot) -> Result<()> {
        self.put(snapshot)?;
        self.names()?.insert((snapshot.space.as_str(), snapshot.key.as_str()), snapshot.id)?;
        self.multimap(CONTENTS)?.insert(snapshot.content, snapshot.id)?;
        if let Some(parent) = snapshot.parent {
            self.multimap(CHILDREN)?.insert(parent, snapshot.id)?;
        }
        if let Some(chain) = &snapshot.chain_id {
            self.multimap(CHAINS)?.insert(chain.to_string().as_str(), snapshot.id)?;
        }
        let mut numbers = self.transaction.open_table(NUMBERS)?;
        let next = numbers.get(NEXT_ID)?.map_or(1, |number| number.value());
        numbers.insert(NEXT_ID, next.max(snapshot.id + 1))?;
        Ok(())
    }

    /// Takes a record out of every table.
    pub fn delete(&self, snapshot: &Snapshot) -> Result<()> {
        self.snapshots()?.remove(snapshot.id)?;
        self.names()?.remove((snapshot.space.as_str(), snapshot.key.as_str()))?;
        self.multimap(CONTENTS)?.remove(snapshot.content, snapshot.id)?;
        if let Some(parent) = snapshot.parent {
            self.multimap(CHILDREN)?.remove(parent, snapshot.id)?;
        }
        if let Some(chain) = &snapshot.chain_id {
            self.multimap(CHAINS)?.remove(chain.to_string().as_str(), snapshot.id)?;
        }
        Ok(())
    }

    /// Replaces a record whose name, parent, content and chain stay.
    pub fn put(&self, snapshot: &Snapshot) -> Result<()> {
        self.snapshots()?.insert(snapshot.id, encode(snapshot)?.as_slice())?;
        Ok(())
    }
}

fn values<'k, K: redb::Key + 'static>(
    table: &impl ReadableMultimapTable<K, u64>,
    key: impl std::borrow::Borrow<K::SelfType<'k>>,
) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    for value in table.get(key)? {
        found.push(value?.value());
    }
    Ok(found)
}

fn by_id(table: &impl ReadableTable<u64, &'static [u8]>, id: u64) -> Result<Snapshot> {
    match table.get(id)? {
        Some(record) => decode(record.value()),
        None => Err(Error::Damaged { what: format!("there is no record of snapshot number {id}") }),
    }
}

fn by_name(
    names: &impl ReadableTable<(&'static str, &'static str), u64>,
    snapshots: &impl ReadableTable<u64, &'static [u8]>,
    space: &Space,
    key: &str,
) -> Result<Option<Snapshot>> {
    match names.get((space.as_str(), key))? {
        Some(id) => by_id(snapshots, id.value()).map(Some),
        None => Ok(None),
    }
}

pub(super) fn encode<T: serde::Serialize>(record: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(record).map_err(|error| Error::Damaged { what: format!("a record cannot be written: {error}") })
}

pub(super) fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| Error::Damaged { what: format!("a record cannot be read: {error}") })
}
