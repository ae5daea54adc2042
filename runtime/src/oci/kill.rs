//! `kill`: a signal to the container's process, or to all of them.

use super::log;
use super::state::{Container, Root, Status};
use crate::error::{Doing, Error, Result};
use nix::sys::signal::Signal as Number;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, pidfd_send_signal};
use std::str::FromStr;

/// A signal from `15`, `TERM` or `SIGTERM`.
pub fn parse(word: &str) -> Result<Signal> {
    let named = || {
        let upper = word.to_ascii_uppercase();
        let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
        Number::from_str(&name).ok().map(|number| number as i32)
    };
    let number = word.parse::<i32>().ok().or_else(named);
    let signal = number.and_then(Signal::from_named_raw);
    signal.ok_or_else(|| Error::invalid("signal", format!("unknown signal {word:?}")))
}

/// Sends a signal to init, or with `all` to everybody in the container's cgroup.
pub fn kill(root: &Root, id: &str, signal: Signal, all: bool) -> Result<()> {
    let container = root.load(id)?;
    if all {
        return kill_all(&container, signal);
    }
    match container.status()? {
        Status::Stopped | Status::Creating => Err(not_running(&container)),
        status => {
            send(&container, signal)?;
            // A frozen process would not hear it.
            if status == Status::Paused && signal == Signal::KILL {
                container.saved.cgroups.freeze(false)
            } else {
                Ok(())
            }
        }
    }
}

fn not_running(container: &Container) -> Error {
    Error::NotRunning { id: container.saved.id.clone(), status: Status::Stopped.to_string() }
}

fn send(container: &Container, signal: Signal) -> Result<()> {
    let Some(init) = container.init()? else { return Err(not_running(container)) };
    match pidfd_send_signal(&init, signal) {
        Err(Errno::SRCH) => Err(not_running(container)),
        outcome => outcome.doing(|| format!("send {signal:?} to container {:?}", container.saved.id)),
    }
}

/// Frozen meanwhile, so that nobody is born while the others are told.
fn kill_all(container: &Container, signal: Signal) -> Result<()> {
    let cgroups = &container.saved.cgroups;
    if cgroups.0.is_empty() {
        return match container.init()? {
            Some(_) => send(container, signal),
            None => Ok(()),
        };
    }
    if signal == Signal::KILL
        && let Some(directory) = cgroups.unified().filter(|_| cgroups.0.len() == 1)
    {
        let path = directory.path.join("cgroup.kill");
        if path.exists() {
            return std::fs::write(&path, "1").doing(|| format!("write {}", path.display()));
        }
    }
    let freezes = cgroups.directory("freezer").is_some() || cgroups.unified().is_some();
    let was_frozen = cgroups.frozen()?;
    if freezes && !was_frozen {
        cgroups.freeze(true)?;
    }
    let sent = signal_each(&cgroups.processes()?, signal);
    if freezes && (!was_frozen || signal == Signal::KILL) {
        cgroups.freeze(false)?;
    }
    sent
}

fn signal_each(processes: &[i32], signal: Signal) -> Result<()> {
    for pid in processes.iter().filter_map(|pid| Pid::from_raw(*pid)) {
        match kill_process(pid, signal) {
            Err(Errno::SRCH) => {}
            outcome => outcome.doing(|| format!("send {signal:?} to process {}", pid.as_raw_nonzero()))?,
        }
    }
    Ok(())
}

/// Ends the container's processes and waits until init is gone.
pub fn end(container: &Container) -> Result<()> {
    let Some(init) = container.init()? else { return Ok(()) };
    match pidfd_send_signal(&init, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(errno) => return Err(errno).doing(|| format!("kill container {:?}", container.saved.id)),
    }
    if container.saved.cgroups.frozen()? {
        container.saved.cgroups.freeze(false)?;
    }
    loop {
        match poll(&mut [PollFd::new(&init, PollFlags::IN)], None) {
            Err(Errno::INTR) => {}
            outcome => {
                outcome.doing(|| "wait for the end of a container".into())?;
                log::debug(&format!("container {:?} has ended", container.saved.id));
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_numbers_and_names_with_or_without_sig() {
        for word in ["15", "TERM", "SIGTERM", "term"] {
            assert_eq!(parse(word).unwrap(), Signal::TERM);
        }
        assert!(parse("SIGNONE").is_err() && parse("0x").is_err());
    }
}
