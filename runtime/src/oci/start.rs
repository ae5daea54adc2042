//! `start`: the container's process begins.

use super::hooks;
use super::state::{Container, FIFO, Root, Status};
use crate::error::{Doing, Error, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Longest reason that init can give in one write to a pipe.
const REASON_BYTES_MAX: usize = 4096;

/// Lets init go on, waits until the program runs, runs the poststart hooks.
pub fn start(root: &Root, id: &str) -> Result<()> {
    let container = root.load(id)?;
    match container.status()? {
        Status::Created => {}
        Status::Stopped => {
            return Err(Error::invalid(format!("container {id:?}"), "cannot start a container that has stopped"));
        }
        status => {
            return Err(Error::invalid(
                format!("container {id:?}"),
                format!("cannot start an already {status} container"),
            ));
        }
    }
    if let Err(error) = release(&container) {
        // The specification: the container is stopped, and what follows its end follows.
        super::kill::end(&container)?;
        let spec = container.spec()?;
        let poststop = spec.hooks().as_ref().and_then(|all| all.poststop().as_ref());
        hooks::run_and_warn(
            "poststop",
            poststop,
            &hooks::input(&container.saved.state(Status::Stopped))?,
            directory(&container),
        );
        return Err(error);
    }
    let spec = container.spec()?;
    let poststart = spec.hooks().as_ref().and_then(|all| all.poststart().as_ref());
    let state = hooks::input(&container.saved.state(Status::Running))?;
    hooks::run("poststart", poststart, &state, directory(&container)).or_else(|error| {
        super::kill::end(&container)?;
        Err(error)
    })
}

/// Hooks begin in the bundle; if that is gone, at the root.
pub fn directory(container: &Container) -> &Path {
    if container.saved.bundle.is_dir() { &container.saved.bundle } else { Path::new("/") }
}

fn release(container: &Container) -> Result<()> {
    let path = container.dir().join(FIFO);
    let gone = || Error::Inside("cannot start a container that has stopped".into());
    let init = container.init()?.ok_or_else(gone)?;
    // Not waiting for the other end: init may have died, and poll(2) hears of that too.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fifo = openat(CWD, &path, flags, Mode::empty()).doing(|| format!("open {}", path.display()))?;
    let reason = read_reason(&fifo, &init)?;
    fs::remove_file(&path).doing(|| format!("remove {}", path.display()))?;
    match reason.is_empty() {
        true => Ok(()),
        false => Err(Error::Inside(String::from_utf8_lossy(&reason).into_owned())),
    }
}

/// What init writes until its end of the fifo closes: nothing, if it has become the program.
fn read_reason(fifo: &OwnedFd, init: &OwnedFd) -> Result<Vec<u8>> {
    let doing = || "wait for init to start".to_owned();
    let mut reason = Vec::new();
    loop {
        let mut polled = [PollFd::new(fifo, PollFlags::IN), PollFd::new(init, PollFlags::IN)];
        match poll(&mut polled, None) {
            Err(Errno::INTR) => continue,
            outcome => outcome.doing(doing)?,
        };
        let [heard, ended] = polled.map(|one| !one.revents().is_empty());
        if !heard && ended {
            return Ok(b"init ended before it was started".to_vec());
        }
        let mut buffer = [0_u8; REASON_BYTES_MAX];
        match rustix::io::read(fifo, &mut buffer) {
            Ok(0) => return Ok(reason),
            Ok(length) => reason.extend_from_slice(&buffer[..length]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno).doing(doing),
        }
    }
}
