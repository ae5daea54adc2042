//! One more process in a container that runs.
//!
//! Must not know command lines. Invariant: it has what the container's own process has, but for what the caller asks for.

use super::error::{Error, Result};
use super::make::BASE;
use super::record::{Container, read};
use super::start::require_running;
use super::status::Run;
use crate::bundle;
use crate::oci::exec::{Options, exec as oci_exec};
use crate::oci::init::Streams;
use oci_spec::runtime::Process;
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// What the caller asks for.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// What runs.
    pub command: Vec<String>,
    /// `NAME=VALUE`, over those of the container.
    pub environment: Vec<String>,
    /// In place of the container's.
    pub directory: Option<String>,
    /// In place of the container's.
    pub user: Option<String>,
    /// A terminal.
    pub terminal: bool,
    /// The caller's standard input.
    pub interactive: bool,
    /// Nobody waits for it.
    pub detach: bool,
}

/// Runs it; answers its exit code, or 0 when it was left behind.
///
/// # Errors
/// [`Error::NotRunning`], [`Error::CommandNotFound`], [`Error::CannotRun`].
pub fn exec(container: &Container, wish: &Wish) -> Result<u8> {
    require_running(container)?;
    let inside = container.oci_root().load(container.record.id.as_str())?;
    let spec = inside.spec()?;
    let own = spec.process().clone().ok_or_else(|| Error::usage("the container's configuration has no process"))?;
    let base: serde_json::Value = read(&container.dir().join(BASE))?.unwrap_or_default();
    let user = wish.user.clone().unwrap_or_else(|| bundle::user(&base).to_owned());
    let options = Options {
        id: container.record.id.as_str().to_owned(),
        process: process(own, wish)?,
        console_socket: None,
        pid_file: None,
        pidfd_socket: None,
        detach: wish.detach,
        preserved: 0,
        ignore_paused: false,
        cgroup: None,
        streams: streams(wish)?,
        user: Some(user),
    };
    oci_exec(&container.oci_root(), &options).map(|code| code as u8).map_err(|error| match container.run() {
        // A program that the kernel cannot read any more looks as if it were not there.
        Ok(Some(Run { fault: Some(fault), .. })) => Error::CannotRun { sentence: format!("{error}: {fault}") },
        _ => Error::of_start(error),
    })
}

fn process(mut process: Process, wish: &Wish) -> Result<Process> {
    process.set_args(Some(wish.command.clone())).set_terminal(Some(wish.terminal));
    if let Some(directory) = &wish.directory {
        if !directory.starts_with('/') {
            return Err(Error::usage(format!("the working directory {directory:?} is not an absolute path")));
        }
        process.set_cwd(PathBuf::from(directory));
    }
    let mut environment = process.env().clone().unwrap_or_default();
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    environment.retain(|old| !wish.environment.iter().any(|new| name(new) == name(old)));
    if wish.terminal && !environment.iter().any(|entry| name(entry) == "TERM") {
        environment.push("TERM=xterm".to_owned());
    }
    environment.extend(wish.environment.iter().cloned());
    process.set_env(Some(environment));
    Ok(process)
}

/// The caller's, but for an input that was not asked for; nothing where nobody waits.
fn streams(wish: &Wish) -> Result<Option<Streams>> {
    if wish.terminal || (wish.interactive && !wish.detach) {
        return Ok(None);
    }
    let path = Path::new("/dev/null");
    let null = || openat(CWD, path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(Error::io("open", path));
    let own = |stream: std::os::fd::BorrowedFd<'_>| -> Result<OwnedFd> {
        match wish.detach {
            true => null(),
            false => rustix::io::fcntl_dupfd_cloexec(stream, 0)
                .map_err(|errno| Error::usage(format!("cannot pass a stream: {errno}"))),
        }
    };
    Ok(Some(Streams { input: null()?, output: own(rustix::stdio::stdout())?, errors: own(rustix::stdio::stderr())? }))
}
