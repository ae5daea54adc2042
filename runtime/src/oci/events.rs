//! `events`: what a container uses, once or again and again.

use super::cgroup::statistics;
use super::state::{Root, Status};
use crate::error::{Error, Result};
use serde_json::{Value, json};

/// One line of `events`: `None` once the container has ended.
pub fn sample(root: &Root, id: &str) -> Result<Option<Value>> {
    let container = root.load(id)?;
    match container.status()? {
        Status::Stopped => Ok(None),
        _ => Ok(Some(json!({"type": "stats", "id": id, "data": statistics::read(&container.saved.cgroups)?}))),
    }
}

/// One line for a container that must be there.
pub fn statistics(root: &Root, id: &str) -> Result<Value> {
    let gone = || Error::NotRunning { id: id.into(), status: Status::Stopped.to_string() };
    sample(root, id)?.ok_or_else(gone)
}
