//! The container's terminal, as the container has it: made in its own devpts, so that its name means the same inside.
//!
//! Invariant: neither end is opened by a name that the image could have replaced: what is opened is proven to be a devpts,
//! and the other end is asked of it, not looked up (CVE-2025-52565).

use super::mountpoints::{Target, find_or_make};
use super::resolve;
use super::rootfs::{attach, clone_file};
use crate::error::{Doing, Error, Result};
use oci_spec::runtime::Process;
use rustix::fs::OFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::stdio::stdin;
use rustix::termios::{Winsize, isatty, tcgetwinsize, tcsetwinsize};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// `DEVPTS_SUPER_MAGIC` of linux/magic.h.
const DEVPTS: i64 = 0x1cd1;

/// The multiplexer, where config.json mounts the devpts.
const MULTIPLEXER: &str = "/dev/pts/ptmx";

/// What goes with the descriptor over a console socket: what callers print as its name.
const NAME: &[u8] = b"/dev/ptmx";

/// Both ends of a terminal.
#[derive(Debug)]
pub struct Console {
    master: OwnedFd,
    terminal: OwnedFd,
}

impl Console {
    /// Makes a terminal in the devpts below `root`.
    pub fn open(root: BorrowedFd<'_>, process: &Process) -> Result<Self> {
        let doing = || format!("open {MULTIPLEXER}: process.terminal needs a devpts mounted at /dev/pts");
        let master = resolve::open(root, Path::new(MULTIPLEXER), OFlags::RDWR | OFlags::NOCTTY).doing(doing)?;
        if !resolve::is_on(&master, DEVPTS)? {
            return Err(Error::invalid(MULTIPLEXER, "is not on a devpts"));
        }
        unlockpt(&master).doing(|| "unlock the terminal".into())?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = ioctl_tiocgptpeer(&master, flags).doing(|| "open the terminal".into())?;
        if let Some(size) = size(process)? {
            tcsetwinsize(&terminal, size).doing(|| "set process.consoleSize".into())?;
        }
        Ok(Console { master, terminal })
    }

    /// Shows the terminal as /dev/console.
    pub fn bind(&self, root: BorrowedFd<'_>) -> Result<()> {
        let doing = || "bind the terminal to /dev/console".to_owned();
        let target = find_or_make(root, Path::new("/dev/console"), Target::File, None)?;
        let tree = clone_file(self.terminal.as_fd(), false).doing(doing)?;
        attach(tree.as_fd(), target.as_fd()).doing(doing)
    }

    /// Hands the other end to whoever holds the socket, and makes the terminal the caller's own: standard streams and controlling
    /// terminal. The caller leads a session already.
    pub fn take(self, socket: &OwnedFd) -> Result<()> {
        send(socket, self.master.as_fd(), NAME).doing(|| "send the terminal to the console socket".into())?;
        drop(self.master);
        rustix::process::ioctl_tiocsctty(&self.terminal).doing(|| "take the controlling terminal".into())?;
        let doing = || "take the terminal as standard streams".to_owned();
        rustix::stdio::dup2_stdin(&self.terminal).doing(doing)?;
        rustix::stdio::dup2_stdout(&self.terminal).doing(doing)?;
        rustix::stdio::dup2_stderr(&self.terminal).doing(doing)
    }
}

/// Where a terminal's other end goes.
#[derive(Debug)]
pub enum Receiver {
    /// To a caller's socket.
    Caller(OwnedFd),
    /// To the runtime itself, which stays in the foreground.
    Ours {
        /// What init sends to.
        inside: OwnedFd,
        /// What the runtime receives from.
        outside: OwnedFd,
    },
}

impl Receiver {
    /// Connects to the caller's socket.
    pub fn caller(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).doing(|| format!("connect to the console socket {}", path.display()))?;
        Ok(Receiver::Caller(stream.into()))
    }

    /// A socket of our own.
    pub fn ours() -> Result<Self> {
        let (inside, outside) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .doing(|| "make a console socket".into())?;
        Ok(Receiver::Ours { inside, outside })
    }

    /// Init's end.
    pub fn inside(&self) -> &OwnedFd {
        match self {
            Receiver::Caller(socket) | Receiver::Ours { inside: socket, .. } => socket,
        }
    }

    /// The terminal's other end, if it came to us.
    pub fn receive(self) -> Result<Option<OwnedFd>> {
        match self {
            Receiver::Caller(_) => Ok(None),
            Receiver::Ours { inside, outside } => {
                drop(inside);
                receive(&outside).doing(|| "receive the container's terminal".into()).map(Some)
            }
        }
    }
}

/// The size of config.json, else that of the caller's terminal: set before the program can ask for it.
fn size(process: &Process) -> Result<Option<Winsize>> {
    if let Some(size) = process.console_size() {
        let (rows, columns) = (size.height() as u16, size.width() as u16);
        return Ok(Some(Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }));
    }
    match isatty(stdin()) {
        true => tcgetwinsize(stdin()).doing(|| "ask for the size of the terminal".into()).map(Some),
        false => Ok(None),
    }
}

/// Sends a descriptor and the name that goes with it.
pub(super) fn send(socket: &OwnedFd, descriptor: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(socket, &[IoSlice::new(name)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(socket: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0_u8; 64];
    recvmsg(socket, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut messages = control.drain();
    let descriptor = messages.find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    descriptor.ok_or(rustix::io::Errno::NODATA)
}
