//! Programs that the caller wants run at points of a container's life.
//!
//! Invariant: hooks run one after another in their order; whether a failure counts is the caller's to decide.

use super::log;
use super::state::State;
use crate::error::{Doing, Error, Result};
use nix::sys::memfd::{MFdFlags, memfd_create};
use oci_spec::runtime::Hook;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// Runs all, and stops at the first that fails.
pub fn run(kind: &'static str, hooks: Option<&Vec<Hook>>, state: &[u8], dir: &Path) -> Result<()> {
    for hook in hooks.into_iter().flatten() {
        run_one(kind, hook, state, dir)?;
    }
    Ok(())
}

/// Runs all; a failure is only told.
pub fn run_and_warn(kind: &'static str, hooks: Option<&Vec<Hook>>, state: &[u8], dir: &Path) {
    for hook in hooks.into_iter().flatten() {
        if let Err(error) = run_one(kind, hook, state, dir) {
            log::warn(&error.to_string());
        }
    }
}

/// What a hook reads on standard input.
pub fn input(state: &State) -> Result<Vec<u8>> {
    serde_json::to_vec(state).map_err(|source| Error::Json { place: "the state of a container".into(), source })
}

fn run_one(kind: &'static str, hook: &Hook, state: &[u8], dir: &Path) -> Result<()> {
    let failed = |problem: String| Error::Hook { kind, path: hook.path().display().to_string(), problem };
    if !hook.path().is_absolute() {
        return Err(failed("the path is not absolute".into()));
    }
    if hook.timeout().is_some_and(|seconds| seconds <= 0) {
        return Err(failed("the timeout is not above zero".into()));
    }
    let child = start(hook, state, dir).map_err(|error| failed(error.to_string()))?;
    match finish(child, hook.timeout())? {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(failed(match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, signal) => format!("killed by signal {}", signal.unwrap_or_default()),
        })),
        None => Err(failed(format!("still running after {} s, killed", hook.timeout().unwrap_or_default()))),
    }
}

fn start(hook: &Hook, state: &[u8], dir: &Path) -> io::Result<Child> {
    // A file, so that a hook that does not read it cannot hold us up.
    let mut input = File::from(memfd_create(c"state", MFdFlags::MFD_CLOEXEC)?);
    input.write_all(state)?;
    input.rewind()?;
    let mut command = Command::new(hook.path());
    let arguments = hook.args().as_deref().unwrap_or_default();
    if let Some((name, rest)) = arguments.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear();
    for variable in hook.env().iter().flatten() {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        command.env(name, value);
    }
    command.current_dir(dir).stdin(Stdio::from(input)).spawn()
}

/// Its status, or `None` after it had to be killed.
fn finish(mut child: Child, timeout_s: Option<i64>) -> Result<Option<ExitStatus>> {
    let doing = || "wait for a hook".to_owned();
    let Some(seconds) = timeout_s else { return child.wait().doing(doing).map(Some) };
    let Some(pid) = Pid::from_raw(child.id() as i32) else { return child.wait().doing(doing).map(Some) };
    let descriptor = pidfd_open(pid, PidfdFlags::empty()).doing(doing)?;
    let limit = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let ended = poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&limit)).doing(doing)?;
    if ended == 0 {
        child.kill().doing(|| "kill a hook".into())?;
        child.wait().doing(doing)?;
        return Ok(None);
    }
    child.wait().doing(doing).map(Some)
}
