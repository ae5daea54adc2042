//! Ending containers from outside, and waiting for their end.
//!
//! Must not know what a monitor does. Invariant: whoever waits waits for the monitor, which ends last, so that what it writes down is there.

use super::error::{Error, Result};
use super::record::Container;
use super::start::require_running;
use super::status::{State, await_end};
use crate::oci::kill as oci_kill;
use rustix::process::Signal;

/// Sends a signal.
///
/// # Errors
/// [`Error::NotRunning`]; a signal that is none.
pub fn signal(container: &Container, word: &str) -> Result<()> {
    let signal = oci_kill::parse(word)?;
    require_running(container)?;
    match oci_kill::kill(&container.oci_root(), container.record.id.as_str(), signal, false) {
        Err(crate::error::Error::NotRunning { .. } | crate::error::Error::NoSuchContainer(_)) => {
            Err(Error::NotRunning { name: container.record.name.to_string() })
        }
        outcome => Ok(outcome?),
    }
}

/// Asks it to end, and kills it when it has not after its time; one that does not run is well.
///
/// # Errors
/// A signal that cannot be sent.
pub fn stop(container: &Container, seconds: Option<u32>) -> Result<()> {
    if !container.state()?.runs() {
        return Ok(());
    }
    let seconds = seconds.unwrap_or(container.record.stop_timeout_seconds);
    match signal(container, &container.record.stop_signal) {
        Err(Error::NotRunning { .. }) => return finish(container),
        outcome => outcome?,
    }
    match ends_within(container, Some(seconds))? {
        true => finish(container),
        false => kill(container),
    }
}

/// Kills it, and waits until it has ended.
///
/// # Errors
/// A signal that cannot be sent.
pub fn kill(container: &Container) -> Result<()> {
    match oci_kill::kill(&container.oci_root(), container.record.id.as_str(), Signal::KILL, false) {
        // It ended by itself, or its monitor has not made it yet.
        Err(crate::error::Error::NotRunning { .. } | crate::error::Error::NoSuchContainer(_)) => {}
        outcome => outcome?,
    }
    finish(container)
}

/// Waits for its end; answers its exit code.
///
/// # Errors
/// The kernel's.
pub fn wait(container: &Container) -> Result<u8> {
    loop {
        match container.state()? {
            State::Exited(exit) => return Ok(exit.code),
            // Docker waits for a start that may come; here it would wait for ever.
            State::Created => return Ok(0),
            State::Running { .. } if !container.dir().exists() => return Ok(0),
            State::Running { .. } => finish(container)?,
        }
    }
}

/// Waits for the container's process; true when it has ended.
fn ends_within(container: &Container, seconds: Option<u32>) -> Result<bool> {
    let inside = match container.oci_root().load(container.record.id.as_str()) {
        Err(crate::error::Error::NoSuchContainer(_)) => return Ok(true),
        outcome => outcome?,
    };
    match inside.init()? {
        Some(process) => await_end(&process, seconds),
        None => Ok(true),
    }
}

/// Waits for the process, then for the monitor.
fn finish(container: &Container) -> Result<()> {
    ends_within(container, None)?;
    let monitor = container.run()?.and_then(|run| run.monitor.open());
    monitor.map_or(Ok(true), |monitor| await_end(&monitor, None)).map(drop)
}
