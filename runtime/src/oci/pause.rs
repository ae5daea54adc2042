//! `pause`, `resume` and `ps`: what goes through the container's cgroup.

use super::state::{Root, Status};
use crate::error::{Error, Result};

/// Freezes every process of a container.
pub fn pause(root: &Root, id: &str) -> Result<()> {
    let container = root.load(id)?;
    match container.status()? {
        Status::Running | Status::Created => container.saved.cgroups.freeze(true),
        status => Err(Error::NotRunning { id: id.into(), status: status.to_string() }),
    }
}

/// Thaws them.
pub fn resume(root: &Root, id: &str) -> Result<()> {
    let container = root.load(id)?;
    match container.status()? {
        Status::Paused => container.saved.cgroups.freeze(false),
        status => Err(Error::invalid(format!("container {id:?}"), format!("container not paused: it is {status}"))),
    }
}

/// The numbers of its processes, as the runtime sees them.
pub fn processes(root: &Root, id: &str) -> Result<Vec<i32>> {
    let container = root.load(id)?;
    match container.status()? {
        Status::Stopped => Ok(Vec::new()),
        _ if container.saved.cgroups.0.is_empty() => Ok(vec![container.saved.pid]),
        _ => container.saved.cgroups.processes(),
    }
}
