//! Staying with a container: its output, its terminal, its server, its end.
//!
//! Owns the one loop. Must not know how the container was made. Invariants: the container's output has one reader; while the server lives its
//! device is held here too, and let go of when it dies, so that nobody waits for answers that never come.

use super::error::{Error, Result};
use super::filesystem::Filesystem;
use super::log::{Stream, Writer};
use super::record::Container;
use super::status::Run;
use crate::oci::create::Running;
use crate::oci::foreground::{Attention, Relay, exit_code, write_all};
use crate::oci::log as diagnostics;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};
use std::os::fd::{AsFd as _, OwnedFd};

/// Bytes that one read takes.
const BUFFER_BYTES: usize = 16 * 1024;

/// What of the container goes to the caller's own streams, beside the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// Nothing: nobody looks.
    Nobody,
    /// Output; and input to a terminal if it was asked for.
    Caller,
}

/// One pipe that the container writes to.
#[derive(Debug)]
pub struct Source {
    /// Our end; not waited for.
    pub pipe: OwnedFd,
    /// Which of its streams.
    pub stream: Stream,
}

/// Whoever stays with one container.
#[derive(Debug)]
pub struct Monitor<'a> {
    container: &'a Container,
    run: Run,
    init: Pid,
    process: OwnedFd,
    attention: Attention,
    relay: Option<Relay>,
    sources: Vec<Source>,
    server: Option<Server>,
    writer: Writer,
    attach: Attach,
}

#[derive(Debug)]
struct Server {
    pid: Pid,
    process: OwnedFd,
    /// Held for its being open.
    _device: OwnedFd,
}

/// How it ended.
#[derive(Debug)]
pub struct End {
    /// As a shell has it.
    pub code: i32,
    /// What went wrong meanwhile.
    pub fault: Option<String>,
    /// The server, if it has not ended before: our child, and the same by descriptor.
    pub server: Option<(Pid, OwnedFd)>,
}

/// What a poll has found.
#[derive(Debug, Default)]
struct Found {
    ended: bool,
    signalled: bool,
    server_ended: bool,
    terminal: Option<PollFlags>,
    typed: bool,
    sources: Vec<bool>,
}

impl<'a> Monitor<'a> {
    /// For a container that has just begun to run.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(
        container: &'a Container,
        run: Run,
        running: Running,
        sources: Vec<Source>,
        filesystem: Filesystem,
        attach: Attach,
    ) -> Result<Monitor<'a>> {
        let failed = |errno: Errno| Error::usage(format!("cannot stay with the container's process: {errno}"));
        let init = Pid::from_raw(running.pid).ok_or_else(|| failed(Errno::SRCH))?;
        let reads = attach == Attach::Caller && container.record.interactive;
        let relay = running.console.map(|console| Relay::new(console, reads)).transpose()?;
        let Filesystem { server, process, device, mount } = filesystem;
        // It is the container's now: held here too, it would outlive the container.
        drop(mount);
        Ok(Monitor {
            container,
            run,
            init,
            process: pidfd_open(init, PidfdFlags::empty()).map_err(failed)?,
            attention: running.attention,
            relay,
            sources,
            server: Some(Server { pid: server, process, _device: device }),
            writer: Writer::open(&container.log())?,
            attach,
        })
    }

    /// Stays until the container's process has ended.
    ///
    /// # Errors
    /// The kernel's.
    pub fn stay(mut self) -> Result<End> {
        loop {
            let found = self.wait(false)?;
            if found.signalled {
                self.attention.pass(self.init, self.relay.as_ref())?;
            }
            if found.server_ended {
                self.lose_server()?;
            }
            self.move_output(&found)?;
            if found.ended {
                break;
            }
        }
        let code = exit_code(self.init)?;
        // With the container's process all others in it have ended: what they said is here.
        self.drain()?;
        Ok(End { code, fault: self.run.fault, server: self.server.map(|server| (server.pid, server.process)) })
    }

    fn wait(&self, at_once: bool) -> Result<Found> {
        let input = rustix::stdio::stdin();
        let mut polled = vec![PollFd::new(&self.process, PollFlags::IN)];
        let attention = self.attention.descriptor();
        polled.push(PollFd::from_borrowed_fd(attention, PollFlags::IN));
        let server_at = self.server.as_ref().map(|server| {
            polled.push(PollFd::new(&server.process, PollFlags::IN));
            polled.len() - 1
        });
        let mut terminal_at = None;
        let mut input_at = None;
        if let Some(relay) = self.relay.as_ref().filter(|relay| !relay.hung_up) {
            let writes = if relay.pending.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            polled.push(PollFd::new(&relay.master, PollFlags::IN | writes));
            terminal_at = Some(polled.len() - 1);
            if relay.pending.is_empty() && !relay.input_ended {
                polled.push(PollFd::new(&input, PollFlags::IN));
                input_at = Some(polled.len() - 1);
            }
        }
        let sources_at = polled.len();
        polled.extend(self.sources.iter().map(|source| PollFd::new(&source.pipe, PollFlags::IN)));
        let timeout = at_once.then(rustix::event::Timespec::default);
        match poll(&mut polled, timeout.as_ref()) {
            Err(Errno::INTR) => return Ok(Found::default()),
            outcome => outcome.map_err(|errno| Error::usage(format!("cannot wait for the container: {errno}")))?,
        };
        let events = |at: usize| polled.get(at).map_or(PollFlags::empty(), |one| one.revents());
        let any = |at: Option<usize>| at.is_some_and(|at| !events(at).is_empty());
        Ok(Found {
            ended: any(Some(0)),
            signalled: any(Some(1)),
            server_ended: any(server_at),
            terminal: terminal_at.map(events),
            typed: any(input_at),
            sources: (sources_at..polled.len()).map(|at| any(Some(at))).collect(),
        })
    }

    fn move_output(&mut self, found: &Found) -> Result<()> {
        let (writer, attach) = (&mut self.writer, self.attach);
        if let Some(relay) = &mut self.relay {
            let terminal = found.terminal.unwrap_or(PollFlags::empty());
            if terminal.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                relay.output(&mut |said| tell(writer, attach, Stream::Output, said))?;
            }
            if found.typed {
                relay.input()?;
            }
            if terminal.contains(PollFlags::OUT) {
                relay.flush()?;
            }
        }
        let mut ready = found.sources.iter();
        let mut outcome = Ok(());
        self.sources.retain(|source| match ready.next() {
            Some(true) if outcome.is_ok() => match take(source, writer, attach) {
                Ok(more) => more,
                Err(error) => {
                    outcome = Err(error);
                    true
                }
            },
            _ => true,
        });
        outcome
    }

    fn drain(&mut self) -> Result<()> {
        let (writer, attach) = (&mut self.writer, self.attach);
        if let Some(relay) = &mut self.relay {
            relay.drain(&mut |said| tell(writer, attach, Stream::Output, said))?;
        }
        while !self.sources.is_empty() {
            let found = self.wait(true)?;
            if !found.sources.contains(&true) {
                return Ok(());
            }
            self.move_output(&Found { sources: found.sources, ..Found::default() })?;
        }
        Ok(())
    }

    /// The server has ended before the container: the device is closed, so that the kernel answers in its place, with errors.
    fn lose_server(&mut self) -> Result<()> {
        let Some(server) = self.server.take() else { return Ok(()) };
        let how = match waitpid(Some(server.pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => match (status.terminating_signal(), status.exit_status()) {
                (Some(signal), _) => format!("was killed by signal {signal}"),
                // The mount is gone: a container that ends takes it along a moment before it can be waited for.
                (None, Some(0)) => return Ok(()),
                (None, code) => format!("ended with code {}", code.unwrap_or_default()),
            },
            Ok(None) | Err(_) => "ended".to_owned(),
        };
        let process = server.pid.as_raw_nonzero();
        drop(server);
        let fault = format!(
            "the server of the root filesystem (lamina-fs, process {process}) {how} while the container ran: all that the kernel has not \
             cached of its files answers with errors; stop the container and start it anew, what it wrote until then is kept"
        );
        tell(&mut self.writer, self.attach, Stream::Errors, format!("lamina: {fault}\n").as_bytes())?;
        self.run.fault = Some(fault);
        self.container.set_run(&self.run)
    }
}

/// Takes what is there; false at the end.
fn take(source: &Source, writer: &mut Writer, attach: Attach) -> Result<bool> {
    let mut buffer = [0_u8; BUFFER_BYTES];
    match rustix::io::read(&source.pipe, &mut buffer) {
        Ok(0) => Ok(false),
        Ok(length) => {
            tell(writer, attach, source.stream, &buffer[..length])?;
            Ok(true)
        }
        Err(Errno::AGAIN | Errno::INTR) => Ok(true),
        Err(errno) => Err(Error::usage(format!("cannot read what the container says: {errno}"))),
    }
}

fn tell(writer: &mut Writer, attach: Attach, stream: Stream, said: &[u8]) -> crate::error::Result<()> {
    if let Err(error) = writer.write(stream, said) {
        // The container goes on: a full disk must not end it.
        diagnostics::warn(&format!("the log is incomplete: {error}"));
    }
    if attach == Attach::Caller {
        let to = match stream {
            Stream::Output => rustix::stdio::stdout(),
            Stream::Errors => rustix::stdio::stderr(),
        };
        if let Err(errno) = write_all(to.as_fd(), said) {
            diagnostics::debug(&format!("nobody reads what the container says: {errno}"));
        }
    }
    Ok(())
}
