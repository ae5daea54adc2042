//! Something done inside the namespaces of another process, by a process of its own.
//!
//! Owns the fork. Must not know what is done. Invariant: whoever calls has one thread, and the child never becomes another program.

use super::error::{Error, Result};
use crate::error::Doing as _;
use crate::oci::init;
use crate::oci::sync::{Line, Report};
use crate::sys::clone;
use nix::sched::{CloneFlags, setns};
use rustix::fs::{Gid, Uid};
use rustix::process::{WaitOptions, waitpid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
use std::os::fd::BorrowedFd;

/// Does it in these namespaces of a process that is given by descriptor; as root there, if the user namespace is among them.
///
/// # Errors
/// [`Error::Inside`] with what it said.
pub(super) fn inside(process: BorrowedFd<'_>, namespaces: CloneFlags, act: impl FnOnce() -> Result<()>) -> Result<()> {
    inside_while(process, namespaces, act, || Ok(()))
}

/// The same, and something else here meanwhile. If both fail, what was said inside counts: this side then met nobody who listened.
///
/// # Errors
/// [`Error::Inside`] with what it said, or that of this side.
pub(super) fn inside_while(
    process: BorrowedFd<'_>,
    namespaces: CloneFlags,
    act: impl FnOnce() -> Result<()>,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let said = |sentence: String| Error::Inside { sentence };
    let (line, telling) = Line::pair()?;
    let forked = clone::fork(0).map_err(|error| said(format!("fork: {error}")))?;
    let Some(child) = forked else {
        drop(line);
        let done = enter(process, namespaces).map_err(Error::from).and_then(|()| act());
        match done {
            Ok(()) => std::process::exit(0),
            Err(error) => init::fail(&telling, &crate::error::Error::Inside(error.to_string())),
        }
    };
    drop((telling, act));
    let here = meanwhile();
    let outcome = match line.wait() {
        Ok(Report::Failed(reason)) => Err(said(reason)),
        Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    };
    let ended = waitpid(Some(child), WaitOptions::empty()).map_err(|errno| said(format!("wait: {errno}")))?;
    match ended {
        Some((_, status)) if outcome.is_ok() && status.exit_status() != Some(0) => {
            Err(said("the process that was to do it was killed".into()))
        }
        _ => outcome.and(here),
    }
}

fn enter(process: BorrowedFd<'_>, namespaces: CloneFlags) -> crate::error::Result<()> {
    if namespaces.is_empty() {
        return Ok(());
    }
    setns(process, namespaces).doing(|| "enter the namespaces of the container".into())?;
    if namespaces.contains(CloneFlags::CLONE_NEWUSER) {
        set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).doing(|| "become root of the user namespace".into())?;
        set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).doing(|| "become root of the user namespace".into())?;
    }
    Ok(())
}
