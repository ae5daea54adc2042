//! A container goes.
//!
//! Owns the order: processes, runtime's part, volumes, snapshot, record. Invariant: each step may find its work done already, so that a removal that
//! was interrupted is finished by the next one.

use super::error::{Error, Result};
use super::filesystem::as_inner_root;
use super::ids::Ids;
use super::list::Containers;
use super::record::{Container, absent_is_well};
use super::start::kill;
use crate::error::Doing as _;
use crate::oci::delete;
use lamina_snapshotter::error::Error as StoreError;
use lamina_snapshotter::snapshot::Space;
use lamina_snapshotter::store::Store;
use std::fs;
use std::io;
use std::path::Path;

/// Removes a container that does not run, or that nobody looks after any more.
///
/// # Errors
/// Those of each step; then the container is still there, and can be removed again.
pub fn remove(store: &Path, container: &Container) -> Result<()> {
    let lock = container.lock()?;
    delete::delete(&container.oci_root(), container.record.id.as_str(), true)?;
    clear(container)?;
    // A fork follows, which would hold the lock as well, until it has ended.
    remove_volumes(container)?;
    match Store::open(store)?.remove(&Space::containers(), container.record.id.as_str()) {
        Ok(()) | Err(StoreError::NoSnapshot { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Containers::new(store).remove(container)?;
    drop(lock);
    Ok(())
}

/// Ends a server that a killed monitor has left, and forgets that run.
pub(super) fn clear(container: &Container) -> Result<()> {
    let Some(run) = container.run()? else { return Ok(()) };
    let is_own = run.monitor.pid == std::process::id() as i32;
    if let Some(server) = run.server.filter(|_| !is_own).and_then(|server| server.open()) {
        kill(&server)?;
    }
    container.forget_run()
}

/// The anonymous volumes. What others than root own inside belongs to ids that the user is not: so it is removed from inside.
fn remove_volumes(container: &Container) -> Result<()> {
    let path = container.dir().join("volumes");
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => match Ids::choose() {
            Ids::Range(maps) => {
                as_inner_root(&maps, || fs::remove_dir_all(&path).doing(|| format!("delete {}", path.display())))
            }
            Ids::Host | Ids::One(_) => Err(Error::io("delete", &path)(error)),
        },
        outcome => absent_is_well(outcome).map_err(Error::io("delete", &path)),
    }
}
