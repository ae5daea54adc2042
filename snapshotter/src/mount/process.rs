//! A process that may have been started by an earlier life of this program.
//!
//! Owns its identity on disk. Invariant: a signal reaches the very process that was written down, or nobody: its number may
//! belong to another one by now.

use crate::error::{Error, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

/// What tells a process from every other one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pid: i32,
    /// Clock ticks since the boot, see proc_pid_stat(5).
    start_time: u64,
    boot: String,
}

/// A process that is held by its descriptor, so that its number cannot be given to another one unnoticed.
#[derive(Debug)]
pub struct Process {
    descriptor: OwnedFd,
}

impl Identity {
    /// Of a process that is there now.
    pub fn of(pid: u32) -> Result<Identity> {
        let pid = pid.cast_signed();
        let boot = boot()?;
        match start_time(pid) {
            Some(start_time) => Ok(Identity { pid, start_time, boot }),
            None => Err(Error::Io {
                action: "look at process",
                path: format!("/proc/{pid}/stat").into(),
                cause: std::io::ErrorKind::NotFound.into(),
            }),
        }
    }

    /// Takes hold of it, if it still runs. One that has ended and that nobody has waited for does not run.
    pub fn find(&self) -> Result<Option<Process>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        let Ok(descriptor) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return Ok(None) };
        // Looked at after the descriptor is open: now the number cannot change hands any more.
        let same = self.boot == boot()? && start_time(self.pid) == Some(self.start_time);
        let process = Process { descriptor };
        Ok((same && !process.ended_within(0)).then_some(process))
    }
}

impl Process {
    /// Sends a signal; a process that is gone is well.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match rustix::process::pidfd_send_signal(&self.descriptor, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(Error::io("signal a process through", Path::new("/proc/self/fd"))(errno)),
        }
    }

    /// Waits until it has ended, for so many milliseconds at most.
    pub fn ended_within(&self, timeout_ms: u16) -> bool {
        let mut wait = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut wait, PollTimeout::from(timeout_ms)), Ok(1))
    }

    /// Waits until it has ended.
    pub fn wait(&self) {
        let mut wait = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)];
        while !matches!(poll(&mut wait, PollTimeout::NONE), Ok(1)) {}
    }
}

fn boot() -> Result<String> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    Ok(fs::read_to_string(path).map_err(Error::io("read", path))?.trim().to_owned())
}

/// Field 22; the name before it may hold anything, also parentheses.
fn start_time(pid: i32) -> Option<u64> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after_name = text.iter().rposition(|byte| *byte == b')')? + 2;
    let rest = std::str::from_utf8(text.get(after_name..)?).ok()?;
    rest.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_is_found_until_it_ends_and_never_taken_for_another() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let identity = Identity::of(child.id()).unwrap();
        let process = identity.find().unwrap().expect("it runs");
        let other = Identity { start_time: identity.start_time + 1, ..identity.clone() };
        assert!(other.find().unwrap().is_none());
        process.signal(Signal::TERM).unwrap();
        process.wait();
        assert!(identity.find().unwrap().is_none(), "it waits for its parent only");
        child.wait().unwrap();
        assert!(identity.find().unwrap().is_none());
        process.signal(Signal::TERM).unwrap();
    }
}
