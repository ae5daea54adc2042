//! A container that stands still while its files are read.
//!
//! Invariant: whatever happens, it goes on afterwards.

use super::enter::inside;
use super::error::{Error, Result};
use super::record::Container;
use super::status::State;
use crate::oci::{log, pause};
use nix::sched::CloneFlags;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

/// Stands still while this lives.
#[derive(Debug)]
pub struct Frozen<'a>(Option<&'a Container>);

/// Brings what a running container has written to its layer, and stops it. One that does not run, or is paused already, stays as it is; one that
/// cannot be stopped goes on, and that is said.
///
/// # Errors
/// What keeps its files from being brought to its layer.
pub fn freeze(container: &Container) -> Result<Frozen<'_>> {
    let State::Running { paused: false, .. } = container.state()? else { return Ok(Frozen(None)) };
    let (root, id) = (container.oci_root(), container.record.id.as_str());
    let frozen = match pause::pause(&root, id) {
        Ok(()) => Frozen(Some(container)),
        Err(error) => {
            log::warn(&format!("{error}: it is read while it runs"));
            Frozen(None)
        }
    };
    // Pages of files that are mapped and written are in the kernel only.
    if let Some(init) = root.load(id)?.init()? {
        let user = if container.record.rootless { CloneFlags::CLONE_NEWUSER } else { CloneFlags::empty() };
        inside(init.as_fd(), user | CloneFlags::CLONE_NEWNS, || {
            let path = Path::new("/");
            let root = File::open(path).map_err(Error::io("open", path))?;
            rustix::fs::syncfs(&root).map_err(Error::io("sync", path))
        })?;
    }
    Ok(frozen)
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let Some(container) = self.0 else { return };
        if let Err(error) = pause::resume(&container.oci_root(), container.record.id.as_str()) {
            log::warn(&format!("{}: it stays paused: {error}", container.record.name));
        }
    }
}
