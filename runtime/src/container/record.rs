//! One container on disk: `STORE/containers/ID/`.
//!
//! Owns the files and what is in `container.json` and `exit.json`. Invariant: both are replaced by one rename, so a reader finds the old
//! text or the new one.
//!
//! ```text
//! lock             whoever changes the container holds it (flock)
//! container.json   Record: written when all else is there; while it is missing there is no container
//! bundle/          the OCI bundle: config.json
//! log              what it said, one line each: TIME STREAM F|P TEXT
//! exit.json        Exit: of its last run
//! mountpoints      what its runs made for mounts to stand on: see `oci::mountpoints`
//! ```
//!
//! Its snapshot is in the store, in `Space::containers()`, under the ID as key.

use super::error::{Error, Result};
use super::id::Id;
use super::name::Name;
use lamina_snapshotter::digest::{ChainId, Digest};
use nix::fcntl::{Flock, FlockArg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

pub(super) const RECORD: &str = "container.json";
const LOCK: &str = "lock";
const EXIT: &str = "exit.json";
const NOTE: &str = "mountpoints";

/// What is known of a container from its making on. Fields that later releases add have a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its ID.
    pub id: Id,
    /// Its name.
    pub name: Name,
    /// The image, as the user named it.
    pub image: String,
    /// The digest of the image's configuration: what docker calls the image's id.
    pub image_id: Digest,
    /// The top of the image's layers, which the snapshot stands on; none for an image without layers.
    pub chain_id: Option<ChainId>,
    /// When it was made, RFC 3339 in UTC.
    pub created: String,
    /// The number of its snapshot's directory: `Dirs::layer` and `Dirs::work` of it are the upper directory and its work directory.
    pub content: u64,
    /// The command line: the entrypoint and its arguments.
    pub command: Vec<String>,
    /// Those of the image and of the command line.
    pub labels: BTreeMap<String, String>,
    /// Removed when it ends (`--rm`).
    pub remove: bool,
    /// Has a terminal (`-t`).
    pub terminal: bool,
    /// Its standard input stays open (`-i`).
    pub interactive: bool,
    /// What `stop` sends, as signal(7) spells it.
    pub stop_signal: String,
    /// How long `stop` waits before it kills.
    pub stop_timeout_seconds: u32,
    /// Made by a user without privilege: owners may be in attributes, not in the inodes.
    pub rootless: bool,
}

/// How a run of a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// As a shell has it: 128 and the signal for one that was killed.
    pub code: u8,
    /// RFC 3339 in UTC.
    pub finished: String,
    /// The kernel killed it for memory.
    #[serde(default)]
    pub out_of_memory: bool,
    /// Why it could not run, if that is so.
    #[serde(default)]
    pub error: Option<String>,
}

/// A container: its directory and its record.
#[derive(Clone, Debug)]
pub struct Container {
    pub(super) dir: PathBuf,
    /// As it was read.
    pub record: Record,
}

impl Container {
    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The OCI bundle, with config.json.
    pub fn bundle(&self) -> PathBuf {
        self.dir.join("bundle")
    }

    /// What its runs made for mounts to stand on.
    pub(super) fn note(&self) -> PathBuf {
        self.dir.join(NOTE)
    }

    /// What it said.
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// How its last run ended; none if it never ran, or runs.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Json`].
    pub fn exit(&self) -> Result<Option<Exit>> {
        read(&self.dir.join(EXIT))
    }

    /// Notes how a run ended, or with none that one begins.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn set_exit(&self, exit: Option<&Exit>) -> Result<()> {
        let path = self.dir.join(EXIT);
        let Some(exit) = exit else {
            return absent_is_well(fs::remove_file(&path)).map_err(Error::io("delete", &path));
        };
        replace(&path, exit)
    }

    /// Writes the record anew.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self) -> Result<()> {
        replace(&self.dir.join(RECORD), &self.record)
    }

    /// Keeps other processes from changing the container, and waits for one that does. The lock goes with its descriptor: a process
    /// that is forked while it is held, and does not become another program, holds it too.
    ///
    /// # Errors
    /// [`Error::NoSuchContainer`] if it was removed meanwhile; [`Error::Io`].
    pub fn lock(&self) -> Result<Flock<File>> {
        let gone = || Error::NoSuchContainer { text: self.record.id.to_string() };
        let path = self.dir.join(LOCK);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(gone()),
            outcome => outcome.map_err(Error::io("open", &path))?,
        };
        let lock = wait_for(file).map_err(Error::io("lock", &path))?;
        match self.dir.join(RECORD).exists() {
            true => Ok(lock),
            false => Err(gone()),
        }
    }
}

fn wait_for(mut file: File) -> io::Result<Flock<File>> {
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusive) {
            Ok(lock) => return Ok(lock),
            Err((free, nix::errno::Errno::EINTR)) => free,
            Err((_, errno)) => return Err(errno.into()),
        };
    }
}

/// Takes the lock of a directory, which is made where it is missing.
pub(super) fn create_lock(dir: &Path) -> Result<Flock<File>> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    wait_for(file.map_err(Error::io("create", &path))?).map_err(Error::io("lock", &path))
}

/// Whether somebody makes, changes or removes the container of that directory now.
pub(super) fn is_worked_on(dir: &Path) -> Result<bool> {
    let path = dir.join(LOCK);
    let file = match OpenOptions::new().read(true).write(true).open(&path) {
        // Killed before it made the lock, or after it removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        outcome => outcome.map_err(Error::io("open", &path))?,
    };
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(_) => Ok(false),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(true),
        Err((_, errno)) => Err(Error::io("lock", &path)(errno)),
    }
}

/// A file of JSON, if it is there.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => {
            serde_json::from_slice(&text).map(Some).map_err(|cause| Error::Json { path: path.to_owned(), cause })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// Replaces a file of JSON by one rename.
pub(super) fn replace(path: &Path, content: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(content).map_err(|cause| Error::Json { path: path.to_owned(), cause })?;
    text.push(b'\n');
    let draft = path.with_extension(format!("json.{}", std::process::id()));
    let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft);
    let written = written.and_then(|mut file| file.write_all(&text)).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // The first error is the one to tell of.
        drop(fs::remove_file(&draft));
    }
    written.map_err(Error::io("write", path))
}

pub(super) fn absent_is_well(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}
