//! `update`: other limits for a container that exists.

use super::state::{Root, Status};
use crate::error::{Error, Result};
use oci_spec::runtime::LinuxResources;

/// Sets limits; those that are not named stay.
pub fn update(root: &Root, id: &str, resources: &LinuxResources) -> Result<()> {
    let container = root.load(id)?;
    match container.status()? {
        Status::Stopped => Err(Error::NotRunning { id: id.into(), status: Status::Stopped.to_string() }),
        _ => container.saved.cgroups.apply(resources),
    }
}
