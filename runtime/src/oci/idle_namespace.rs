//! A user namespace in which nobody lives: what mount_setattr(2) wants as the map of a mount.

use super::id_maps::IdMaps;
use super::sync::Line;
use crate::error::{Doing, Error, Result};
use crate::sys::clone;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{WaitOptions, waitpid};
use std::os::fd::OwnedFd;

/// Makes a user namespace with these maps. Its only process has ended when this returns.
pub fn make(maps: &IdMaps) -> Result<OwnedFd> {
    let (outside, inside) = Line::pair()?;
    let doing = || "make a user namespace for a mount".to_owned();
    let Some(child) = clone::fork(libc::CLONE_NEWUSER as u64).doing(doing)? else {
        drop(outside);
        // It only has to live until the other side has opened the namespace, and hears of that by the closed socket.
        let ended = inside.await_go();
        std::process::exit(i32::from(ended.is_ok()));
    };
    drop(inside);
    let pid = child.as_raw_nonzero().get();
    let path = format!("/proc/{pid}/ns/user");
    let namespace = maps
        .write(pid)
        .and_then(|()| openat(CWD, path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).doing(doing));
    drop(outside);
    waitpid(Some(child), WaitOptions::empty()).doing(doing)?;
    match namespace {
        Err(error) => Err(Error::Inside(format!("{}: {error}", doing()))),
        namespace => namespace,
    }
}
