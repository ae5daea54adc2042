//! Reading a log, also while it grows.
//!
//! Owns the wait for more. Must not know how it is shown. Invariants: no entry is shown twice or left out, also when the log moves aside
//! meanwhile; the wait ends when the monitor has.

use super::error::{Error, Result};
use super::log::{Entry, old};
use super::record::Container;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// How much of a log is wanted.
#[derive(Debug, Clone, Default)]
pub struct Extent {
    /// The last so many lines; none for all.
    pub tail: Option<usize>,
    /// What was said from this moment on, RFC 3339 in UTC.
    pub since: Option<String>,
    /// What is said from now on too, until the container ends.
    pub follow: bool,
}

/// Calls `show` for each entry, oldest first.
///
/// # Errors
/// [`Error::Io`]; those of `show`.
pub fn read(container: &Container, extent: &Extent, show: &mut dyn FnMut(&Entry<'_>) -> Result<()>) -> Result<()> {
    let path = container.log();
    // Watched before it is read, so that nothing that comes in between is missed.
    let watch = extent.follow.then(|| watch(container.dir())).transpose()?;
    let mut lines = VecDeque::new();
    let mut current = open(&path)?;
    // Only a log that moved aside has a predecessor.
    for log in [open(&old(&path))?, current.take()] {
        let Some(mut log) = log else { continue };
        while let Some(line) = next_line(&mut log)? {
            lines.push_back(line);
            if extent.tail.is_some_and(|tail| lines.len() > tail) {
                lines.pop_front();
            }
        }
        current = Some(log);
    }
    for line in &lines {
        show_line(line, extent, show)?;
    }
    match watch {
        Some(watch) => follow(container, extent, watch, current, show),
        None => Ok(()),
    }
}

/// A log and what of its last line has been read.
#[derive(Debug)]
struct Log {
    file: BufReader<File>,
    begun: Vec<u8>,
}

fn open(path: &Path) -> Result<Option<Log>> {
    match File::open(path) {
        Ok(file) => Ok(Some(Log { file: BufReader::new(file), begun: Vec::new() })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("open", path)(error)),
    }
}

/// The next whole line; what is not whole yet waits for its rest.
fn next_line(log: &mut Log) -> Result<Option<Vec<u8>>> {
    let read = log.file.read_until(b'\n', &mut log.begun);
    read.map_err(Error::io("read", Path::new("the container's log")))?;
    match log.begun.pop() {
        Some(b'\n') => Ok(Some(std::mem::take(&mut log.begun))),
        Some(byte) => {
            log.begun.push(byte);
            Ok(None)
        }
        None => Ok(None),
    }
}

fn show_line(line: &[u8], extent: &Extent, show: &mut dyn FnMut(&Entry<'_>) -> Result<()>) -> Result<()> {
    match Entry::parse(line) {
        // Such times compare as texts do.
        Some(entry) if extent.since.as_deref().is_none_or(|since| entry.time >= since) => show(&entry),
        _ => Ok(()),
    }
}

fn watch(dir: &Path) -> Result<OwnedFd> {
    let failed = |errno: rustix::io::Errno| Error::usage(format!("cannot watch the container's log: {errno}"));
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let watch = inotify::init(flags).map_err(failed)?;
    let events = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_FROM;
    inotify::add_watch(&watch, dir, events).map_err(failed)?;
    Ok(watch)
}

fn follow(
    container: &Container,
    extent: &Extent,
    watch: OwnedFd,
    mut log: Option<Log>,
    show: &mut dyn FnMut(&Entry<'_>) -> Result<()>,
) -> Result<()> {
    let path = container.log();
    loop {
        // Asked before the last reading: what it wrote until its end is read.
        let monitor = container.run()?.and_then(|run| run.monitor.open());
        loop {
            if let Some(log) = &mut log {
                while let Some(line) = next_line(log)? {
                    show_line(&line, extent, show)?;
                }
            }
            // The log that we have read to its end may have moved aside: then the new one goes on.
            match is_other(log.as_ref(), &path)? {
                true => log = open(&path)?,
                false => break,
            }
        }
        let Some(monitor) = monitor else { return Ok(()) };
        let mut polled = [PollFd::new(&watch, PollFlags::IN), PollFd::new(&monitor, PollFlags::IN)];
        match poll(&mut polled, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::usage(format!("cannot wait for the container's log: {errno}"))),
        }
        forget_events(&watch)?;
    }
}

fn is_other(log: Option<&Log>, path: &Path) -> Result<bool> {
    let now = match std::fs::metadata(path) {
        Ok(found) => Some(found.ino()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("look at", path)(error)),
    };
    let open = log.map(|log| log.file.get_ref().metadata().map(|found| found.ino())).transpose();
    Ok(now.is_some() && now != open.map_err(Error::io("look at", path))?)
}

fn forget_events(watch: &OwnedFd) -> Result<()> {
    let mut buffer = [0_u8; 4096];
    loop {
        match rustix::io::read(watch.as_fd(), &mut buffer) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(()),
            Err(errno) => return Err(Error::usage(format!("cannot watch the container's log: {errno}"))),
        }
    }
}
