//! All containers of a store: `STORE/containers/`.
//!
//! Owns which IDs and names are taken, and the order in which a container comes and goes. Invariants: two makers never have one ID or
//! name; a kill at any moment leaves a container, or debris that [`Containers::sweep`] removes.
//!
//! ```text
//! lock          held while IDs and names are taken or swept (flock)
//! ID/           one container; see `record`
//! names/NAME    a symbolic link to ../ID: its making is the claim
//! ```
//!
//! To make one: [`Containers::claim`]; prepare its snapshot with the claim's ID as key; write the bundle; [`Claim::commit`]. To remove one:
//! hold [`Container::lock`]; remove its snapshot; [`Containers::remove`].

use super::error::{Error, Result};
use super::id::Id;
use super::name::Name;
use super::record::{self, Container, RECORD, Record, absent_is_well};
use nix::fcntl::Flock;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};

const NAMES: &str = "names";
/// Nobody but the owner gets to what lies below.
const PRIVATE_MODE: u32 = 0o700;
/// The second attempt already picks one of 2^42 names.
const NAME_ATTEMPTS_MAX: u32 = 4;

/// The directory of all containers of a store.
#[derive(Clone, Debug)]
pub struct Containers {
    root: PathBuf,
}

impl Containers {
    /// Those of the store at `store`; nothing is made or read yet.
    pub fn new(store: &Path) -> Containers {
        Containers { root: store.join("containers") }
    }

    /// Takes a new ID and a name: the given one, or one that is made up.
    ///
    /// # Errors
    /// [`Error::NameInUse`]; [`Error::Io`]. Then nothing is left.
    pub fn claim(&self, name: Option<&Name>) -> Result<Claim> {
        let names = self.root.join(NAMES);
        let made = DirBuilder::new().recursive(true).mode(PRIVATE_MODE).create(&names);
        made.map_err(Error::io("create directory", &names))?;
        // A sweep must not take a directory whose own lock is not held yet.
        let _lock = record::create_lock(&self.root)?;
        let id = Id::random()?;
        let dir = self.root.join(id.as_str());
        DirBuilder::new().mode(PRIVATE_MODE).create(&dir).map_err(Error::io("create directory", &dir))?;
        let taken = record::create_lock(&dir).and_then(|lock| Ok((lock, self.take_name(name, &id)?)));
        match taken {
            Ok((lock, name)) => {
                let bundle = dir.join("bundle");
                let claim = Claim { containers: self.clone(), id, name, dir, _lock: lock, kept: false };
                let made = DirBuilder::new().mode(PRIVATE_MODE).create(&bundle);
                made.map_err(Error::io("create directory", &bundle))?;
                Ok(claim)
            }
            Err(error) => {
                fs::remove_dir_all(&dir).map_err(Error::io("delete", &dir))?;
                Err(error)
            }
        }
    }

    fn take_name(&self, wanted: Option<&Name>, id: &Id) -> Result<Name> {
        if let Some(name) = wanted {
            return self.link(name, id).map(|()| name.clone());
        }
        let mut attempt = 0;
        loop {
            let name = Name::random(attempt)?;
            match self.link(&name, id) {
                Err(Error::NameInUse { .. }) if attempt + 1 < NAME_ATTEMPTS_MAX => attempt += 1,
                outcome => return outcome.map(|()| name),
            }
        }
    }

    fn link(&self, name: &Name, id: &Id) -> Result<()> {
        let link = self.root.join(NAMES).join(name.as_str());
        let target = Path::new("..").join(id.as_str());
        let mut made = symlink(&target, &link);
        if made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
            // A kill may have left it: the sweep knows.
            self.sweep_locked()?;
            made = symlink(&target, &link);
        }
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let by = self.named(name)?.map_or_else(|| "another one".to_owned(), |id| id.to_string());
                Err(Error::NameInUse { name: name.to_string(), by })
            }
            outcome => outcome.map_err(Error::io("create", &link)),
        }
    }

    /// The ID that a name stands for.
    fn named(&self, name: &Name) -> Result<Option<Id>> {
        let link = self.root.join(NAMES).join(name.as_str());
        match fs::read_link(&link) {
            Ok(target) => target.file_name().map(|id| id.to_string_lossy().parse()).transpose(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &link)(error)),
        }
    }

    /// Whether anything is there under an ID: a container, or one that comes or goes.
    pub(super) fn has(&self, id: &str) -> bool {
        id.parse::<Id>().is_ok_and(|id| self.root.join(id.as_str()).exists())
    }

    fn load(&self, id: &Id) -> Result<Option<Container>> {
        let dir = self.root.join(id.as_str());
        Ok(record::read::<Record>(&dir.join(RECORD))?.map(|record| Container { dir, record }))
    }

    /// The container of that ID, name or beginning of an ID, in this order.
    ///
    /// # Errors
    /// [`Error::NoSuchContainer`], [`Error::Ambiguous`]; a record that cannot be read.
    pub fn find(&self, text: &str) -> Result<Container> {
        let missing = || Error::NoSuchContainer { text: text.to_owned() };
        let exact = match text.parse::<Id>() {
            Ok(id) => self.load(&id)?,
            Err(_) => None,
        };
        let named = match text.parse::<Name>() {
            Ok(name) if exact.is_none() => self.named(&name)?.map(|id| self.load(&id)).transpose()?.flatten(),
            _ => None,
        };
        if let Some(found) = exact.or(named) {
            return Ok(found);
        }
        if text.is_empty() {
            return Err(missing());
        }
        let mut found = None;
        for id in self.ids()?.into_iter().filter(|id| id.as_str().starts_with(text)) {
            match self.load(&id)? {
                Some(_) if found.is_some() => return Err(Error::Ambiguous { text: text.to_owned() }),
                Some(container) => found = Some(container),
                None => {}
            }
        }
        found.ok_or_else(missing)
    }

    /// All containers, the youngest first.
    ///
    /// # Errors
    /// [`Error::Io`]; a record that cannot be read.
    pub fn list(&self) -> Result<Vec<Container>> {
        let mut found = Vec::new();
        for id in self.ids()? {
            found.extend(self.load(&id)?);
        }
        found.sort_by(|one, other| other.record.created.cmp(&one.record.created));
        Ok(found)
    }

    /// Every ID that has a directory, with a record or without.
    fn ids(&self) -> Result<Vec<Id>> {
        let names = file_names(&self.root)?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Forgets a container whose lock is held and whose snapshot is gone. The record goes before the rest, so that a kill in the middle
    /// leaves the whole container or debris.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove(&self, container: &Container) -> Result<()> {
        self.free_name(&container.record.name, &container.record.id)?;
        let record = container.dir.join(RECORD);
        absent_is_well(fs::remove_file(&record)).map_err(Error::io("delete", &record))?;
        absent_is_well(fs::remove_dir_all(&container.dir)).map_err(Error::io("delete", &container.dir))
    }

    /// Frees a name, if it still is that of `id`.
    fn free_name(&self, name: &Name, id: &Id) -> Result<()> {
        if self.named(name)?.as_ref() != Some(id) {
            return Ok(());
        }
        let link = self.root.join(NAMES).join(name.as_str());
        absent_is_well(fs::remove_file(&link)).map_err(Error::io("delete", &link))
    }

    /// Removes what a kill left: directories without a record that nobody works on, and names of nothing. Answers the IDs, whose snapshots
    /// may be left in the store.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sweep(&self) -> Result<Vec<Id>> {
        if !self.root.join(NAMES).exists() {
            return Ok(Vec::new());
        }
        let _lock = record::create_lock(&self.root)?;
        self.sweep_locked()
    }

    fn sweep_locked(&self) -> Result<Vec<Id>> {
        let mut removed = Vec::new();
        for id in self.ids()? {
            let dir = self.root.join(id.as_str());
            if dir.join(RECORD).exists() {
                continue;
            }
            if record::is_worked_on(&dir)? {
                continue;
            }
            // Its maker may have finished between the look and the lock.
            if !dir.join(RECORD).exists() {
                absent_is_well(fs::remove_dir_all(&dir)).map_err(Error::io("delete", &dir))?;
                removed.push(id);
            }
        }
        for name in file_names(&self.root.join(NAMES))? {
            let Ok(name) = name.parse::<Name>() else { continue };
            // A name is taken after its directory was made, and freed before that goes.
            if let Some(id) = self.named(&name)?
                && !self.root.join(id.as_str()).exists()
            {
                self.free_name(&name, &id)?;
            }
        }
        Ok(removed)
    }
}

/// The names in a directory; none if it is missing.
fn file_names(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        outcome => outcome.map_err(Error::io("read directory", dir))?,
    };
    let name = |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name().to_string_lossy().into_owned());
    entries.map(name).collect::<io::Result<_>>().map_err(Error::io("read directory", dir))
}

/// An ID and a name that are taken for a container which is being made. Dropped without [`Claim::commit`] they are free again. It
/// holds the container's lock.
#[derive(Debug)]
pub struct Claim {
    containers: Containers,
    id: Id,
    name: Name,
    dir: PathBuf,
    _lock: Flock<File>,
    kept: bool,
}

impl Claim {
    /// The ID.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// The name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The container's directory; an empty `bundle/` is in it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes it a container, by writing the record.
    ///
    /// # Errors
    /// [`Error::Io`]; then ID and name are free again.
    pub fn commit(mut self, record: Record) -> Result<Container> {
        let container = Container { dir: self.dir.clone(), record };
        container.save()?;
        self.kept = true;
        Ok(container)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let freed = self.containers.free_name(&self.name, &self.id);
        let removed = absent_is_well(fs::remove_dir_all(&self.dir)).map_err(Error::io("delete", &self.dir));
        if let Err(error) = freed.and(removed) {
            crate::oci::log::warn(&format!("{error}; the next sweep removes it"));
        }
    }
}
