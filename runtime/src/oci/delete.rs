//! `delete`: what is left of a container goes.

use super::state::{Container, Root, Status};
use super::{hooks, kill, start};
use crate::error::{Doing, Error, Result};
use std::fs;
use std::io::ErrorKind;

/// Removes a stopped container. With `force` a running one is killed first, and an unknown one is no error.
pub fn delete(root: &Root, id: &str, force: bool) -> Result<()> {
    let container = match root.load(id) {
        // `create` was interrupted before it wrote anything down: only a directory is left.
        Err(Error::NoSuchContainer(_)) if force => return remove(&root.dir(id)?),
        outcome => outcome?,
    };
    match container.status()? {
        Status::Stopped => {}
        // Its process has not begun: ending it loses nothing, and callers rely on it.
        Status::Created | Status::Creating => kill::end(&container)?,
        _ if force => kill::end(&container)?,
        status => return Err(Error::NotStopped { id: id.into(), status: status.to_string() }),
    }
    container.saved.cgroups.remove()?;
    run_poststop(&container);
    remove(container.dir())
}

/// A failure is told and does not keep the container: it could never be deleted otherwise.
fn run_poststop(container: &Container) {
    let told = container.spec().and_then(|spec| {
        let poststop = spec.hooks().as_ref().and_then(|all| all.poststop().as_ref());
        let state = hooks::input(&container.saved.state(Status::Stopped))?;
        hooks::run_and_warn("poststop", poststop, &state, start::directory(container));
        Ok(())
    });
    if let Err(error) = told {
        super::log::warn(&format!("poststop hooks: {error}"));
    }
}

fn remove(dir: &std::path::Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome.doing(|| format!("remove {}", dir.display())),
    }
}
