//! A container begins to run, and somebody stays with it.
//!
//! Owns the order: root filesystem, configuration, process, monitor, and the end in reverse. Invariants: whoever forks has one thread and does not
//! hold the store or the container's lock; an error before the process runs leaves the container as it was, stopped.

use super::error::{EXIT_OWN_ERROR, Error, Result};
use super::filesystem::{self, Filesystem, Layers};
use super::ids::Ids;
use super::log::Stream;
use super::make::{BASE, LAYERS, Stack};
use super::monitor::{Attach, End, Monitor, Source};
use super::record::{Container, Exit, read, replace};
use super::remove;
use super::status::{Process, Run, State, await_end};
use crate::bundle;
use crate::oci::create::{self, Options};
use crate::oci::delete;
use crate::oci::init::Streams;
use crate::oci::log;
use crate::oci::rootfs::Entry;
use crate::sys::clone;
use rustix::fs::{CWD, Mode, OFlags, fcntl_getfl, fcntl_setfl, openat};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::SystemTime;

/// How long a server may take to end after its container, before it is killed: it brings the container's layer to the disk.
const SERVER_END_SECONDS: u32 = 120;

/// What a monitor in the background tells whoever started it.
#[derive(Debug, Serialize, Deserialize)]
enum News {
    Running,
    Failed { code: u8, sentence: String },
}

/// Runs a container before the caller's eyes; answers its exit code.
///
/// # Errors
/// [`Error::CommandNotFound`], [`Error::CannotRun`], and whatever else keeps it from running.
pub fn attended(store: &Path, container: &Container) -> Result<u8> {
    live(store, container, Attach::Caller, || Ok(()))
}

/// Runs a container in the background; it runs when this returns.
///
/// # Errors
/// As of [`attended`].
pub fn detached(store: &Path, container: &Container) -> Result<()> {
    let failed = |what: &'static str| move |errno: rustix::io::Errno| Error::usage(format!("cannot {what}: {errno}"));
    let (news, telling) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"))?;
    let forked = clone::fork(0).map_err(|error| Error::usage(format!("cannot fork: {error}")))?;
    let Some(monitor) = forked else {
        drop(news);
        let mut telling = Some(File::from(telling));
        let outcome = leave_terminal()
            .and_then(|()| live(store, container, Attach::Nobody, || tell(telling.take(), &News::Running)));
        if let Err(error) = outcome {
            let news = News::Failed { code: error.exit_code(), sentence: error.to_string() };
            if let Err(error) = tell(telling.take(), &news) {
                log::debug(&error.to_string());
            }
            std::process::exit(EXIT_OWN_ERROR.into());
        }
        std::process::exit(0);
    };
    drop(telling);
    let mut text = String::new();
    File::from(news)
        .read_to_string(&mut text)
        .map_err(|error| Error::usage(format!("cannot hear from the monitor: {error}")))?;
    let news = serde_json::from_str(&text);
    if !matches!(news, Ok(News::Running)) {
        // It is about to end: an error leaves nothing behind, a process neither.
        filesystem::reap(monitor);
    }
    match news {
        Ok(News::Running) => Ok(()),
        Ok(News::Failed { code: super::error::EXIT_NOT_FOUND, sentence }) => Err(Error::CommandNotFound { sentence }),
        Ok(News::Failed { code: super::error::EXIT_CANNOT_RUN, sentence }) => Err(Error::CannotRun { sentence }),
        Ok(News::Failed { sentence, .. }) => Err(Error::usage(sentence)),
        Err(_) => Err(Error::usage("the container's monitor ended before the container ran; it may have been killed")),
    }
}

fn tell(to: Option<File>, news: &News) -> Result<()> {
    let Some(mut to) = to else { return Ok(()) };
    let text = serde_json::to_string(news).map_err(|error| Error::usage(error.to_string()))?;
    to.write_all(text.as_bytes()).map_err(|error| Error::usage(format!("cannot tell that the container runs: {error}")))
}

/// In the monitor: what the caller has is not ours.
fn leave_terminal() -> Result<()> {
    let failed = |errno: rustix::io::Errno| Error::usage(format!("cannot leave the terminal: {errno}"));
    rustix::process::setsid().map_err(failed)?;
    rustix::process::chdir("/").map_err(failed)?;
    let null = null()?;
    rustix::stdio::dup2_stdin(&null).map_err(failed)?;
    rustix::stdio::dup2_stdout(&null).map_err(failed)?;
    rustix::stdio::dup2_stderr(&null).map_err(failed)
}

fn null() -> Result<OwnedFd> {
    let path = Path::new("/dev/null");
    openat(CWD, path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(Error::io("open", path))
}

/// The whole life of one run.
fn live(store: &Path, container: &Container, attach: Attach, started: impl FnOnce() -> Result<()>) -> Result<u8> {
    let run = begin(container)?;
    let outcome = stay(store, container, attach, run, started);
    let exit = match &outcome {
        Ok(exit) => exit.clone(),
        Err(error) => Exit {
            code: error.exit_code(),
            finished: log::rfc3339(SystemTime::now()),
            out_of_memory: false,
            error: Some(error.to_string()),
        },
    };
    container.set_exit(Some(&exit))?;
    container.forget_run()?;
    if container.record.remove {
        remove::remove(store, container)?;
    }
    outcome.map(|exit| exit.code)
}

/// Takes the container for this process.
fn begin(container: &Container) -> Result<Run> {
    let _lock = container.lock()?;
    if container.state()?.runs() {
        return Err(Error::usage(format!("container {} is running already", container.record.name)));
    }
    let id = container.record.id.as_str();
    // What a monitor that was killed has left.
    remove::clear(container)?;
    delete::delete(&container.oci_root(), id, true)?;
    let monitor = Process::of(std::process::id() as i32).ok_or_else(|| Error::usage("/proc is not mounted"))?;
    let run = Run { monitor, server: None, started: log::rfc3339(SystemTime::now()), fault: None };
    container.set_exit(None)?;
    container.set_run(&run)?;
    Ok(run)
}

fn stay(
    store: &Path,
    container: &Container,
    attach: Attach,
    mut run: Run,
    started: impl FnOnce() -> Result<()>,
) -> Result<Exit> {
    let stack: Stack = read(&container.dir().join(LAYERS))?.ok_or_else(|| damaged(LAYERS))?;
    let layers = layers(store, &stack, !container.record.remove)?;
    let ids = Ids::choose();
    if let Some(notice) = ids.notice()
        && attach == Attach::Caller
    {
        log::debug(notice);
    }
    let filesystem = layers.mount(&ids)?;
    let server = filesystem.server;
    run.server = Process::of(server.as_raw_nonzero().get());
    let begun = container.set_run(&run).and_then(|()| launch(container, &ids, &filesystem, attach));
    let (running, sources) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            filesystem::end(server);
            return Err(error);
        }
    };
    let memory = container.oci_root().load(container.record.id.as_str()).map(|inside| inside.saved.cgroups)?;
    let monitor = Monitor::new(container, run, running, sources, filesystem, attach)?;
    started()?;
    let End { code, fault, server } = monitor.stay()?;
    let out_of_memory = memory.killed_for_memory();
    delete::delete(&container.oci_root(), container.record.id.as_str(), true)?;
    if let Some((pid, process)) = server {
        if !await_end(&process, Some(SERVER_END_SECONDS))? {
            log::warn("the server of the root filesystem is killed: somebody else holds its mount");
            kill(&process)?;
        }
        filesystem::reap(pid);
    }
    Ok(Exit { code: code as u8, finished: log::rfc3339(SystemTime::now()), out_of_memory, error: fault })
}

pub(super) fn kill(process: &OwnedFd) -> Result<()> {
    match rustix::process::pidfd_send_signal(process, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => await_end(process, None).map(drop),
        Err(errno) => Err(Error::usage(format!("cannot end a process: {errno}"))),
    }
}

fn damaged(file: &str) -> Error {
    Error::usage(format!("{file} of the container is missing: remove the container and make it anew"))
}

/// The layers of a container that does not run, for a mount beside its life.
pub(super) fn parts(store: &Path, container: &Container) -> Result<Layers> {
    let stack: Stack = read(&container.dir().join(LAYERS))?.ok_or_else(|| damaged(LAYERS))?;
    layers(store, &stack, true)
}

fn layers(store: &Path, stack: &Stack, durable: bool) -> Result<Layers> {
    let mut lowers: Vec<_> = stack.lowers.iter().map(|lower| store.join(lower)).collect();
    if lowers.is_empty() {
        // An image without layers: the server wants one, and an empty one changes nothing.
        let empty = store.join("containers/empty");
        std::fs::create_dir_all(&empty).map_err(Error::io("create directory", &empty))?;
        lowers.push(empty);
    }
    let index = stack.index.as_ref().map(|index| store.join(index)).filter(|index| index.exists());
    let (upper, work) = (store.join(&stack.upper), store.join(&stack.work));
    Ok(Layers { lowers, upper, work, index, durable, program: filesystem::program()? })
}

/// The configuration of this start, and the process.
fn launch(
    container: &Container,
    ids: &Ids,
    filesystem: &Filesystem,
    attach: Attach,
) -> Result<(create::Running, Vec<Source>)> {
    let base: serde_json::Value = read(&container.dir().join(BASE))?.ok_or_else(|| damaged(BASE))?;
    let server = filesystem.server.as_raw_nonzero();
    // Our child, so its number is nobody else's while we do not wait for it.
    let namespace = (*ids != Ids::Host).then(|| format!("/proc/{server}/ns/user"));
    let spec = bundle::adapt(&base, ids, namespace.as_deref().map(Path::new))?;
    replace(&container.bundle().join("config.json"), &spec)?;
    let (streams, sources) = match container.record.terminal {
        true => (None, Vec::new()),
        false => {
            let reads = attach == Attach::Caller && container.record.interactive;
            let (output, said) = pipe(Stream::Output)?;
            let (errors, complained) = pipe(Stream::Errors)?;
            (Some(Streams { input: input(reads)?, output, errors }), vec![said, complained])
        }
    };
    let tree = filesystem.mount.try_clone().map_err(|error| Error::usage(format!("cannot keep the mount: {error}")))?;
    let options = Options {
        id: container.record.id.as_str().to_owned(),
        bundle: container.bundle(),
        console_socket: None,
        pid_file: None,
        pidfd_socket: None,
        entry: Entry::Pivot,
        keyring: true,
        preserved: 0,
        systemd_cgroup: false,
        rootfs_tree: Some(tree),
        note: Some(container.note()),
        streams,
        user: Some(bundle::user(&base).to_owned()),
    };
    let running = create::launch(&container.oci_root(), &options).map_err(Error::of_start)?;
    Ok((running, sources))
}

fn pipe(stream: Stream) -> Result<(OwnedFd, Source)> {
    let failed = |errno: rustix::io::Errno| Error::usage(format!("cannot make a pipe: {errno}"));
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    // Not waited for on our side; the container's side is as every program expects it.
    let flags = fcntl_getfl(&ours).map_err(failed)?;
    fcntl_setfl(&ours, flags | OFlags::NONBLOCK).map_err(failed)?;
    Ok((theirs, Source { pipe: ours, stream }))
}

fn input(reads: bool) -> Result<OwnedFd> {
    match reads {
        true => rustix::io::dup(rustix::stdio::stdin())
            .map_err(|errno| Error::usage(format!("cannot pass standard input: {errno}"))),
        false => null(),
    }
}

/// Whether it runs, for verbs that need it to.
///
/// # Errors
/// [`Error::NotRunning`].
pub fn require_running(container: &Container) -> Result<i32> {
    match container.state()? {
        State::Running { pid, .. } => Ok(pid),
        State::Created | State::Exited(_) => Err(Error::NotRunning { name: container.record.name.to_string() }),
    }
}
