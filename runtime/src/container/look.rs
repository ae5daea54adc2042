//! An image or a container at a directory of the host, to look at.
//!
//! Owns the mount and what pins its layers. Must not write: the mount is read-only. Invariant: while an image is mounted a snapshot in the store keeps
//! its layers; its key is the directory, so whoever finds no mount there knows that the snapshot is nobody's.

use super::error::{Error, Result};
use super::filesystem;
use super::parts::Parts;
use lamina_fs::layer::OverrideStat;
use lamina_snapshotter::digest::ChainId;
use lamina_snapshotter::error::Error as StoreError;
use lamina_snapshotter::mount::table;
use lamina_snapshotter::snapshot::Space;
use lamina_snapshotter::store::Store;
use nix::mount::{MntFlags, umount2};
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// As the mount table names what Lamina mounts.
const FUSE_TYPE: &str = "fuse.lamina-fs";
const PRIVATE_MODE: u32 = 0o700;

/// Where something is mounted that the user gave no directory for.
pub fn default_dir(store: &Path, name: &str) -> PathBuf {
    // A name of an image has slashes; none of its characters is otherwise special in a file name.
    store.join("views").join(name.replace('/', "_"))
}

/// Mounts these layers read-only at `dir`, which is made where it is missing. `chain` is pinned until the unmount. Answers the directory in full.
///
/// # Errors
/// [`Error::Look`] if something is mounted there already, or with the sentence of the server; then nothing is left.
pub fn mount(store: &Store, parts: &Parts, chain: Option<&ChainId>, dir: &Path) -> Result<PathBuf> {
    let made = !dir.exists();
    DirBuilder::new().recursive(true).mode(PRIVATE_MODE).create(dir).map_err(Error::io("create directory", dir))?;
    let dir = fs::canonicalize(dir).map_err(Error::io("find", dir))?;
    if table::type_at(&dir)?.as_deref() == Some(FUSE_TYPE) {
        let sentence = format!("{} is mounted already: `lamina umount` it first", dir.display());
        return Err(Error::Look { sentence });
    }
    let key = dir.to_string_lossy().into_owned();
    if let Some(chain) = chain {
        unpin(store, &key)?;
        store.view_layer(&Space::views(), &key, chain)?;
    }
    let mounted = serve(parts, &dir);
    if mounted.is_err() {
        unpin(store, &key)?;
        if made {
            fs::remove_dir(&dir).map_err(Error::io("delete", &dir))?;
        }
    }
    mounted.map(|()| dir)
}

fn serve(parts: &Parts, dir: &Path) -> Result<()> {
    let mut options = OsString::from("ro,fsname=lamina");
    if parts.owners != OverrideStat::Off {
        options.push(",xattr_permissions=2");
    }
    for (at, layer) in parts.layers().iter().enumerate() {
        options.push(if at == 0 { ",lowerdir=" } else { ":" });
        options.push(filesystem::escape(layer));
    }
    let program = filesystem::program()?;
    let output = Command::new(&program).arg("-o").arg(options).arg(dir).output();
    let output = output.map_err(Error::io("run", &program))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::Look { sentence: String::from_utf8_lossy(&output.stderr).trim().to_owned() }),
    }
}

/// Unmounts what is at a directory, and lets its layers go. A directory of the store goes too.
///
/// # Errors
/// [`Error::Look`] if nothing of Lamina is mounted there; the kernel's, such as that it is in use.
pub fn unmount(store: &Path, dir: &Path) -> Result<()> {
    let dir = fs::canonicalize(dir).map_err(Error::io("find", dir))?;
    if table::type_at(&dir)?.as_deref() != Some(FUSE_TYPE) {
        return Err(Error::Look { sentence: format!("nothing of Lamina is mounted at {}", dir.display()) });
    }
    match umount2(&dir, MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => {}
        Err(nix::errno::Errno::EPERM) => fusermount(&dir)?,
        Err(errno) => return Err(Error::io("unmount", &dir)(errno)),
    }
    unpin(&Store::open(store)?, &dir.to_string_lossy())?;
    if fs::canonicalize(store.join("views")).is_ok_and(|views| dir.parent() == Some(&views)) {
        fs::remove_dir(&dir).map_err(Error::io("delete", &dir))?;
    }
    Ok(())
}

fn fusermount(dir: &Path) -> Result<()> {
    let output = Command::new("fusermount3").arg("-u").arg("--").arg(dir).output();
    let output = output.map_err(Error::io("run fusermount3 to unmount", dir))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let cause = io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned());
            Err(Error::io("unmount", dir)(cause))
        }
    }
}

/// Lets go of the layers of mounts that are gone: after a restart of the machine, or an unmount by somebody else. Answers how many.
///
/// # Errors
/// The store's.
pub fn forget_gone(store: &Store) -> Result<usize> {
    let mut forgotten = 0;
    for view in store.list(&Space::views())? {
        if table::type_at(Path::new(&view.key))?.as_deref() != Some(FUSE_TYPE) {
            unpin(store, &view.key)?;
            forgotten += 1;
        }
    }
    Ok(forgotten)
}

fn unpin(store: &Store, key: &str) -> Result<()> {
    match store.remove(&Space::views(), key) {
        Ok(()) | Err(StoreError::NoSnapshot { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
