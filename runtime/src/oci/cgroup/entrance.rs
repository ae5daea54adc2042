//! How a process begins in a cgroup without stopping the machine for it.
//!
//! To move another process the kernel takes a lock that waits for all processors to pass by, some ten milliseconds. It takes none for a process that is born in
//! a cgroup of version 2 (clone(2), `CLONE_INTO_CGROUP`), and none for a thread that moves itself, which version 1 can do (`tasks`). Invariant: what is
//! written needs no path, so it can be done in whatever namespace the process begins in.

use super::Membership;
use crate::error::{Doing, Result};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// The way into a cgroup, open.
#[derive(Debug)]
pub struct Entrance {
    unified: Option<OwnedFd>,
    tasks: Vec<(File, PathBuf)>,
}

impl Membership {
    /// Opens the way in, for one process that is about to be made.
    pub fn entrance(&self) -> Result<Entrance> {
        let mut entrance = Entrance { unified: None, tasks: Vec::new() };
        for directory in &self.0 {
            let path = &directory.path;
            if directory.unified {
                let opened = openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
                entrance.unified = Some(opened.doing(|| format!("open cgroup {}", path.display()))?);
            } else {
                let path = path.join("tasks");
                let opened = OpenOptions::new().write(true).open(&path);
                entrance.tasks.push((opened.doing(|| format!("open {}", path.display()))?, path));
            }
        }
        Ok(entrance)
    }
}

impl Entrance {
    /// Where a process is to be born.
    pub fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(|directory| directory.as_fd())
    }

    /// Brings the calling process, which has one thread, into the cgroups of version 1.
    pub fn enter(&self) -> Result<()> {
        for (file, path) in &self.tasks {
            let mut file: &File = file;
            file.write_all(b"0").doing(|| format!("write \"0\" to {}", path.display()))?;
        }
        Ok(())
    }
}
