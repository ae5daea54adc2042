//! What lies where in a store.
//!
//! Owns the names of directories and files, making and deleting them durably. Must not know the tables. Invariant: a path is
//! made of numbers and digests, never of what a caller named.
//!
//! ```text
//! lock  metadata.redb
//! snapshots/ID/fs      the layer, in the format of the kernel's overlayfs
//! snapshots/ID/work    beside an active one: the work directory of its mount
//! snapshots/ID/index   the merged view of the chain, if somebody built it
//! blobs/sha256/HEX     whole and verified
//! ingest/N             blobs on their way in
//! mounts/ID/           mountpoint and server of a mounted snapshot
//! ```

use crate::digest::Digest;
use crate::error::{Error, Result};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The mode of a root directory that no parent gives one.
const LAYER_ROOT_MODE: u32 = 0o755;

/// Directories that hold other people's files: theirs are the modes inside, ours is who gets there.
const PRIVATE_MODE: u32 = 0o700;

/// The paths of one store.
#[derive(Clone, Debug)]
pub struct Dirs {
    root: PathBuf,
}

impl Dirs {
    /// Makes what is missing below `root`.
    pub fn create(root: &Path) -> Result<Dirs> {
        let dirs = Dirs { root: root.to_owned() };
        let parts = [dirs.root.clone(), dirs.snapshots(), dirs.blobs(), dirs.ingest(), dirs.mounts()];
        for path in parts {
            let made = DirBuilder::new().recursive(true).mode(PRIVATE_MODE).create(&path);
            made.map_err(Error::io("create directory", &path))?;
        }
        // Containers in user namespaces walk through it to their root: search for all, listing for nobody.
        let permissions = Permissions::from_mode(0o711);
        for path in [&dirs.root, &dirs.snapshots(), &dirs.mounts()] {
            fs::set_permissions(path, permissions.clone()).map_err(Error::io("change the mode of", path))?;
        }
        Ok(dirs)
    }

    /// The store's own root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file of the tables.
    pub fn metadata(&self) -> PathBuf {
        self.root.join("metadata.redb")
    }

    /// Where the directories of snapshots are.
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// Everything of one content.
    pub fn content(&self, content: u64) -> PathBuf {
        self.snapshots().join(content.to_string())
    }

    /// The layer of one content.
    pub fn layer(&self, content: u64) -> PathBuf {
        self.content(content).join("fs")
    }

    /// The work directory beside it.
    pub fn work(&self, content: u64) -> PathBuf {
        self.content(content).join("work")
    }

    /// The index of the chain that it is the top of.
    pub fn index(&self, content: u64) -> PathBuf {
        self.content(content).join("index")
    }

    /// Where whole blobs are.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    /// One whole blob.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    /// Where blobs arrive.
    pub fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    /// What mounts leave on disk.
    pub fn mounts(&self) -> PathBuf {
        self.root.join("mounts")
    }

    /// Makes `ID/fs` and, for one that is written, `ID/work`; durable when it returns.
    pub fn make_content(&self, content: u64, work: bool) -> Result<()> {
        let own = self.content(content);
        fs::create_dir(&own).map_err(Error::io("create directory", &own))?;
        // Others must pass, see `create`; what is private in a layer says so itself.
        fs::set_permissions(&own, Permissions::from_mode(0o711)).map_err(Error::io("change the mode of", &own))?;
        let layer = self.layer(content);
        fs::create_dir(&layer).map_err(Error::io("create directory", &layer))?;
        // Whatever the umask is.
        let mode = Permissions::from_mode(LAYER_ROOT_MODE);
        fs::set_permissions(&layer, mode).map_err(Error::io("change the mode of", &layer))?;
        if work {
            let work = self.work(content);
            let made = DirBuilder::new().mode(PRIVATE_MODE).create(&work);
            made.map_err(Error::io("create directory", &work))?;
        }
        sync_dir(&own)?;
        sync_dir(&self.snapshots())
    }

    /// Deletes everything of one content; gone already is well.
    pub fn remove_content(&self, content: u64) -> Result<()> {
        remove_tree(&self.content(content))
    }

    /// The contents that have a directory. A name that is no number is damage, and named by fsck; here it is passed over.
    pub fn contents(&self) -> Result<Vec<u64>> {
        let names = names(&self.snapshots())?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }
}

/// The names in a directory; those that are not UTF-8 are none of ours and are shown with a replacement character.
pub fn names(path: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(Error::io("read directory", path))? {
        let entry = entry.map_err(Error::io("read directory", path))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// Makes the names in a directory durable.
pub fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(Error::io("sync", path))
}

/// Deletes a tree; gone already is well. Directories without permissions are opened up first, for a user without privilege.
pub fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            fs::remove_dir_all(path).map_err(Error::io("delete", path))
        }
        Err(error) => Err(Error::io("delete", path)(error)),
    }
}

fn open_up(path: &Path) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(PRIVATE_MODE)).map_err(Error::io("change the mode of", path))?;
    for entry in fs::read_dir(path).map_err(Error::io("read directory", path))? {
        let entry = entry.map_err(Error::io("read directory", path))?;
        if entry.file_type().map_err(Error::io("read directory", path))?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}
