//! Staying with a container until it ends: its terminal, its signals, its exit code.
//!
//! Invariant: the caller's terminal is as it was when this returns, however it returns.

use super::log;
use crate::error::{Doing, Error, Result};
use nix::sys::signal::{SigSet, Signal as Number};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitOptions, WaitStatus, pidfd_open, waitpid};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes that one read moves between the terminals.
const BUFFER_BYTES: usize = 16 * 1024;

/// What a process that was killed by a signal answers, as shells have it.
const SIGNAL_CODE_BASE: i32 = 128;

/// Signals that are about this process itself, or that no handler sees.
const OWN: [Number; 10] = [
    Number::SIGKILL,
    Number::SIGSTOP,
    Number::SIGSEGV,
    Number::SIGBUS,
    Number::SIGILL,
    Number::SIGFPE,
    Number::SIGTRAP,
    Number::SIGSYS,
    Number::SIGABRT,
    Number::SIGURG,
];

/// Signals that arrive wait to be passed on, instead of ending the runtime.
#[derive(Debug)]
pub struct Attention(SignalFd);

impl Attention {
    /// To be begun before the process is: what it makes others do may be answered with a signal at once.
    pub fn begin() -> Result<Self> {
        let mut signals = SigSet::all();
        for own in OWN {
            signals.remove(own);
        }
        signals.thread_block().doing(|| "block signals".into())?;
        let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
        signals.doing(|| "wait for signals".into()).map(Attention)
    }

    /// Waits for a child to end; with a console, joins it to our standard streams. Answers its exit code.
    pub fn attend(&self, pid: i32, console: Option<OwnedFd>) -> Result<i32> {
        let child = Pid::from_raw(pid).ok_or_else(|| Error::Inside("there is no process to wait for".into()))?;
        let process = match pidfd_open(child, PidfdFlags::empty()) {
            // A child keeps its number until it is waited for.
            Err(Errno::SRCH) => return exit_code(child),
            outcome => outcome.doing(|| "open the container's process".into())?,
        };
        let mut relay = console.map(|console| Relay::new(console, true)).transpose()?;
        while !turn(&process, child, &self.0, relay.as_mut())? {}
        if let Some(relay) = &mut relay {
            relay.drain(&mut show)?;
        }
        exit_code(child)
    }

    /// Readable when a signal has arrived.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Passes on what has arrived; a change of the terminal's size goes to the container's terminal.
    pub fn pass(&self, child: Pid, relay: Option<&Relay>) -> Result<()> {
        pass_signals(&self.0, child, relay)
    }
}

/// Waits for the next thing to happen, and sees to it. True when the process has ended.
fn turn(process: &OwnedFd, child: Pid, signals: &SignalFd, mut relay: Option<&mut Relay>) -> Result<bool> {
    let (ended, signalled, from_caller, from_container, writable) = {
        let input = stdin();
        let mut polled = vec![PollFd::new(process, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        if let Some(relay) = &relay {
            let reads = if relay.hung_up { PollFlags::empty() } else { PollFlags::IN };
            let writes = if relay.pending.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            if !relay.hung_up {
                polled.push(PollFd::new(&relay.master, reads | writes));
            }
            if relay.pending.is_empty() && !relay.input_ended && !relay.hung_up {
                polled.push(PollFd::new(&input, PollFlags::IN));
            }
        }
        match poll(&mut polled, None) {
            Err(Errno::INTR) => return Ok(false),
            outcome => outcome.doing(|| "wait for the container".into())?,
        };
        let any = |at: usize| polled.get(at).is_some_and(|one| !one.revents().is_empty());
        let master = polled.get(2).map_or(PollFlags::empty(), |one| one.revents());
        let reads = master.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
        (any(0), any(1), any(3), reads, master.contains(PollFlags::OUT))
    };
    if signalled {
        pass_signals(signals, child, relay.as_deref())?;
    }
    if let Some(relay) = &mut relay {
        if from_container {
            relay.output(&mut show)?;
        }
        if from_caller {
            relay.input()?;
        }
        if writable {
            relay.flush()?;
        }
    }
    Ok(ended)
}

fn pass_signals(signals: &SignalFd, child: Pid, relay: Option<&Relay>) -> Result<()> {
    while let Some(signal) = signals.read_signal().doing(|| "read a signal".into())? {
        match (Number::try_from(signal.ssi_signo as i32), relay) {
            (Ok(Number::SIGCHLD | Number::SIGPIPE), _) => {}
            (Ok(Number::SIGWINCH), Some(relay)) => relay.resize()?,
            (Ok(number), _) => {
                let target = nix::unistd::Pid::from_raw(child.as_raw_nonzero().get());
                match nix::sys::signal::kill(target, number) {
                    Err(nix::Error::ESRCH) => {}
                    outcome => outcome.doing(|| format!("pass {number} to the container"))?,
                }
            }
            // Real-time signals have no names here, and nobody sends them to a runtime.
            (Err(_), _) => {}
        }
    }
    Ok(())
}

/// Waits for a child that has ended. Others that were given to us are not its concern.
pub fn exit_code(child: Pid) -> Result<i32> {
    loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Err(Errno::INTR) | Ok(None) => {}
            outcome => {
                let ended = outcome.doing(|| "wait for the container's process".into())?;
                return Ok(ended.map_or(0, |(_, status)| code_of(status)));
            }
        }
    }
}

fn code_of(status: WaitStatus) -> i32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => SIGNAL_CODE_BASE + signal,
        (None, None) => 0,
    }
}

/// The container's terminal and ours, joined.
#[derive(Debug)]
pub struct Relay {
    /// The other end of the container's terminal.
    pub master: OwnedFd,
    /// What the container's terminal has no room for yet.
    pub pending: Vec<u8>,
    /// Nothing more comes from our terminal.
    pub input_ended: bool,
    /// Nobody holds the container's terminal any more.
    pub hung_up: bool,
    /// How our terminal was before.
    before: Option<Termios>,
}

impl Relay {
    /// With `reads` what is typed goes to the container: our terminal becomes raw, until this is dropped.
    pub fn new(master: OwnedFd, reads: bool) -> Result<Self> {
        let doing = || "join the terminals".to_owned();
        // Never waited for: a program that does not read must not keep its own output from being shown.
        let flags = fcntl_getfl(&master).doing(doing)?;
        fcntl_setfl(&master, flags | OFlags::NONBLOCK).doing(doing)?;
        let before = if reads && isatty(stdin()) {
            let before = tcgetattr(stdin()).doing(doing)?;
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(stdin(), OptionalActions::Now, &raw).doing(doing)?;
            Some(before)
        } else {
            None
        };
        let relay = Relay { master, pending: Vec::new(), input_ended: !reads, hung_up: false, before };
        relay.resize()?;
        Ok(relay)
    }

    /// Gives the container's terminal the size of ours.
    pub fn resize(&self) -> Result<()> {
        if self.before.is_none() {
            return Ok(());
        }
        let size = tcgetwinsize(stdin()).doing(|| "ask for the size of the terminal".into())?;
        tcsetwinsize(&self.master, size).doing(|| "set the size of the container's terminal".into())
    }

    /// Takes what the container has said, once; false when there was nothing.
    pub fn output(&mut self, sink: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        let mut buffer = [0_u8; BUFFER_BYTES];
        match rustix::io::read(&self.master, &mut buffer) {
            Ok(0) | Err(Errno::IO) => self.hung_up = true,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(length) => {
                sink(&buffer[..length])?;
                return Ok(true);
            }
            Err(errno) => return Err(errno).doing(|| "read the container's terminal".into()),
        }
        Ok(false)
    }

    /// Takes what was typed.
    pub fn input(&mut self) -> Result<()> {
        let mut buffer = [0_u8; BUFFER_BYTES];
        match rustix::io::read(stdin(), &mut buffer) {
            Ok(0) => {
                self.input_ended = true;
                // The end of a pipe is what the end of a file is on a terminal.
                self.pending.push(END_OF_FILE);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::IO | Errno::BADF) => self.input_ended = true,
            Ok(length) => self.pending.extend_from_slice(&buffer[..length]),
            Err(errno) => return Err(errno).doing(|| "read standard input".into()),
        }
        self.flush()
    }

    /// Passes on what there is room for.
    pub fn flush(&mut self) -> Result<()> {
        while !self.pending.is_empty() {
            match rustix::io::write(&self.master, &self.pending) {
                Ok(length) => drop(self.pending.drain(..length)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::IO) => self.pending.clear(),
                Err(errno) => return Err(errno).doing(|| "write to the container's terminal".into()),
            }
        }
        Ok(())
    }

    /// What was written before the end is shown too.
    pub fn drain(&mut self, sink: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        while !self.hung_up && self.output(sink)? {}
        Ok(())
    }
}

/// Control-D, as terminals have it.
const END_OF_FILE: u8 = 4;

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(before) = &self.before
            && let Err(errno) = tcsetattr(stdin(), OptionalActions::Now, before)
        {
            log::warn(&format!("the terminal could not be set back ({errno}); `reset` helps"));
        }
    }
}

fn show(bytes: &[u8]) -> Result<()> {
    write_all(stdout(), bytes).doing(|| "write to standard output".into())
}

/// Writes all, and waits for room.
pub fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::from_borrowed_fd(to, PollFlags::OUT)], None)?;
            }
            outcome => bytes = &bytes[outcome?..],
        }
    }
    Ok(())
}
