//! `--pidfd-socket`: the caller gets a descriptor of the process, which no other process can ever stand for.
//!
//! Invariant: the socket is connected before anything is made, so that a wrong path leaves nothing behind.

use super::console;
use crate::error::{Doing, Error, Result};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// What goes with the descriptor of a container's first process, in runc's words.
pub const INIT: &[u8] = b"standard";

/// What goes with the descriptor of a process that joined.
pub const JOINED: &[u8] = b"setns";

/// A socket that waits for a process's descriptor.
#[derive(Debug)]
pub struct PidfdSocket(OwnedFd);

impl PidfdSocket {
    /// Connects to the caller's socket.
    pub fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).doing(|| format!("connect to the pidfd socket {}", path.display()))?;
        Ok(PidfdSocket(stream.into()))
    }

    /// Sends the descriptor of a process that is ours to wait for, so that its number is not another's yet; see pidfd_open(2).
    pub fn send(&self, pid: i32, name: &[u8]) -> Result<()> {
        let process = Pid::from_raw(pid).ok_or_else(|| Error::Inside("there is no process to send".into()))?;
        let process = pidfd_open(process, PidfdFlags::empty()).doing(|| "open the container's process".into())?;
        console::send(&self.0, process.as_fd(), name).doing(|| "send the process to the pidfd socket".into())
    }
}
