//! What becomes of a container: asked of the kernel, and of what its monitor wrote down.
//!
//! Owns `run.json`. Invariant: a process counts only while its start time is the one that was written down; what a kill of the monitor left is
//! told as such, never as running.

use super::error::{Error, Result};
use super::record::{Container, Exit, absent_is_well, read, replace};
use crate::oci::log::rfc3339;
use crate::oci::state::{Root, Status, start_time};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::fd::OwnedFd;
use std::time::SystemTime;

const RUN: &str = "run.json";

/// What is answered for a process whose end nobody saw, as docker has it.
const CODE_UNKNOWN: u8 = 255;

/// A process, safe from a number that is given to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Clock ticks after boot.
    pub started: u64,
}

impl Process {
    /// That of this number, if there is one.
    pub fn of(pid: i32) -> Option<Process> {
        start_time(pid).map(|started| Process { pid, started })
    }

    /// By descriptor, while it lives.
    pub fn open(self) -> Option<OwnedFd> {
        let descriptor = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // Compared after opening: from here on the descriptor cannot come to mean another process.
        (start_time(self.pid) == Some(self.started)).then_some(descriptor)
    }

    /// Whether it lives.
    pub fn lives(self) -> bool {
        start_time(self.pid) == Some(self.started)
    }
}

/// Waits for the end of a process; false when `seconds` have passed before.
///
/// # Errors
/// The kernel's, see poll(2).
pub fn await_end(process: &OwnedFd, seconds: Option<u32>) -> Result<bool> {
    let timeout = seconds.map(|seconds| Timespec { tv_sec: seconds.into(), tv_nsec: 0 });
    loop {
        match poll(&mut [PollFd::new(process, PollFlags::IN)], timeout.as_ref()) {
            Ok(ended) => return Ok(ended > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::usage(format!("cannot wait for a process: {errno}"))),
        }
    }
}

/// What the monitor of a container wrote down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Who stays with the container.
    pub monitor: Process,
    /// Who serves its root filesystem.
    pub server: Option<Process>,
    /// When it started, RFC 3339 in UTC.
    pub started: String,
    /// What went wrong meanwhile, in a sentence.
    pub fault: Option<String>,
}

/// Where a container is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It never ran.
    Created,
    /// Its process runs, or its monitor has not finished.
    Running {
        /// Its process; 0 before it has one.
        pid: i32,
        /// Frozen.
        paused: bool,
        /// Since when, RFC 3339.
        started: String,
        /// What went wrong meanwhile.
        fault: Option<String>,
    },
    /// It ran.
    Exited(Exit),
}

impl State {
    /// In docker's word.
    pub fn word(&self) -> &'static str {
        match self {
            State::Created => "created",
            State::Running { paused: true, .. } => "paused",
            State::Running { .. } => "running",
            State::Exited(_) => "exited",
        }
    }

    /// Whether it runs.
    pub fn runs(&self) -> bool {
        matches!(self, State::Running { .. })
    }
}

impl Container {
    /// Where the runtime keeps its part of this container.
    pub fn oci_root(&self) -> Root {
        Root::new(Some(self.dir().join("oci")))
    }

    /// What its monitor wrote down, if it ever ran.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Json`].
    pub fn run(&self) -> Result<Option<Run>> {
        read(&self.dir().join(RUN))
    }

    pub(super) fn set_run(&self, run: &Run) -> Result<()> {
        replace(&self.dir().join(RUN), run)
    }

    pub(super) fn forget_run(&self) -> Result<()> {
        let path = self.dir().join(RUN);
        absent_is_well(fs::remove_file(&path)).map_err(Error::io("delete", &path))
    }

    /// Where it is in its life.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Json`]; the runtime's.
    pub fn state(&self) -> Result<State> {
        let Some(run) = self.run()? else {
            return Ok(self.exit()?.map_or(State::Created, State::Exited));
        };
        let running =
            |pid, paused| State::Running { pid, paused, started: run.started.clone(), fault: run.fault.clone() };
        // Asked before the exit is: the monitor writes that down last.
        let monitored = run.monitor.lives();
        if let Some(exit) = self.exit()? {
            return Ok(State::Exited(exit));
        }
        match self.oci_root().load(self.record.id.as_str()) {
            Ok(inside) => match inside.status()? {
                Status::Stopped | Status::Creating => {}
                status => return Ok(running(inside.saved.pid, status == Status::Paused)),
            },
            Err(crate::error::Error::NoSuchContainer(_)) => {}
            Err(error) => return Err(error.into()),
        }
        match monitored {
            true => Ok(running(0, false)),
            // It may have finished between the questions.
            false => Ok(State::Exited(self.exit()?.unwrap_or_else(lost))),
        }
    }
}

/// The end of a container whose monitor was killed.
fn lost() -> Exit {
    Exit {
        code: CODE_UNKNOWN,
        finished: rfc3339(SystemTime::now()),
        out_of_memory: false,
        error: Some("its monitor was killed, so nobody saw how it ended; start it anew, or remove it".to_owned()),
    }
}
