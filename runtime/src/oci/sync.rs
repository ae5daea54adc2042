//! How the runtime and the process that becomes init tell each other how far they are: one socket, one record a message.
//!
//! Invariant: the socket closes when init executes its program, so the end of the conversation is the news that it did.

use crate::error::{Doing, Error, Result};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use std::os::fd::OwnedFd;

/// Longest message: a reason, or the state that hooks read.
const MESSAGE_BYTES_MAX: usize = 128 * 1024;

/// What the inside tells the runtime.
#[derive(Debug, PartialEq, Eq)]
pub enum Report {
    /// The user namespace exists and waits for its maps.
    Map,
    /// The process that will be init, in the runtime's process namespace.
    Init(i32),
    /// The mounts stand: time for the hooks that run outside.
    Hooks,
    /// Everything stands: only the program is missing.
    Ready,
    /// It gave up, and why.
    Failed(String),
    /// The socket closed.
    Ended,
}

/// One end.
#[derive(Debug)]
pub struct Line(OwnedFd);

impl Line {
    /// Both ends.
    pub fn pair() -> Result<(Line, Line)> {
        let kind = SocketType::SEQPACKET;
        let (one, other) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
            .doing(|| "make a socket pair".to_owned())?;
        Ok((Line(one), Line(other)))
    }

    /// Inside: tells the runtime.
    pub fn report(&self, report: &Report) -> Result<()> {
        match report {
            Report::Map => self.write(b"m"),
            Report::Init(pid) => self.write(format!("i{pid}").as_bytes()),
            Report::Hooks => self.write(b"h"),
            Report::Ready => self.write(b"r"),
            Report::Failed(reason) => self.write(format!("f{reason}").as_bytes()),
            Report::Ended => Ok(()),
        }
    }

    /// Runtime: waits for the inside.
    pub fn wait(&self) -> Result<Report> {
        let message = self.read()?;
        let Some((kind, rest)) = message.split_first() else { return Ok(Report::Ended) };
        let text = String::from_utf8_lossy(rest);
        match (kind, text.parse()) {
            (b'm', _) => Ok(Report::Map),
            (b'i', Ok(pid)) => Ok(Report::Init(pid)),
            (b'h', _) => Ok(Report::Hooks),
            (b'r', _) => Ok(Report::Ready),
            (b'f', _) => Ok(Report::Failed(text.into_owned())),
            _ => Err(Error::Inside("the process inside spoke out of turn".into())),
        }
    }

    /// Runtime: lets the inside go on, with what it needs for that.
    pub fn go(&self, with: &[u8]) -> Result<()> {
        self.write(&[b"g", with].concat())
    }

    /// Inside: waits for the runtime.
    pub fn await_go(&self) -> Result<Vec<u8>> {
        match self.read()?.split_first() {
            Some((b'g', with)) => Ok(with.to_owned()),
            _ => Err(Error::Inside("the runtime has ended".into())),
        }
    }

    fn write(&self, message: &[u8]) -> Result<()> {
        let message = &message[..message.len().min(MESSAGE_BYTES_MAX)];
        send(&self.0, message, SendFlags::NOSIGNAL).doing(|| "tell the other side of a container".to_owned())?;
        Ok(())
    }

    fn read(&self) -> Result<Vec<u8>> {
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        loop {
            match recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                // What a process that was killed leaves unread resets the socket: it has ended all the same.
                Err(rustix::io::Errno::CONNRESET) => return Ok(Vec::new()),
                outcome => {
                    let (length, _) = outcome.doing(|| "hear from the other side of a container".to_owned())?;
                    buffer.truncate(length);
                    return Ok(buffer);
                }
            }
        }
    }
}
