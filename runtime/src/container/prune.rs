//! Deleting what no container and no image refers to.
//!
//! Invariant: a container's directory is made before its snapshot and goes after it, so a snapshot without a directory is nobody's.

use super::error::Result;
use super::list::Containers;
use lamina_snapshotter::snapshot::Space;
use lamina_snapshotter::store::{Pruned, Store};

/// What was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Layers and blobs.
    pub store: Pruned,
    /// Snapshots whose container is gone.
    pub snapshots: usize,
    /// Directories that a kill left of containers.
    pub directories: usize,
}

/// Deletes what a kill left of containers, then layers and blobs that nothing refers to.
///
/// # Errors
/// What cannot be read or deleted.
pub fn prune(store: &Store, containers: &Containers) -> Result<Deleted> {
    let directories = containers.sweep()?.len();
    let mut snapshots = 0;
    for snapshot in store.list(&Space::containers())? {
        if !containers.has(&snapshot.key) {
            store.remove(&Space::containers(), &snapshot.key)?;
            snapshots += 1;
        }
    }
    super::look::forget_gone(store)?;
    Ok(Deleted { store: store.prune()?, snapshots, directories })
}
