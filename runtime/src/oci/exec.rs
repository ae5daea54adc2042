//! `exec`: one more process in a container that runs.
//!
//! Invariant: it is in the container's cgroup before it is in any of its namespaces, and it has no more rights than the
//! container's own process unless the caller asks for them.

use super::console::{Console, Receiver};
use super::create::{Then, activation, fork, receiver};
use super::foreground::Attention;
use super::init::{self, Streams};
use super::pidfd::{self, PidfdSocket};
use super::seccomp::Filter;
use super::state::{Root, Status, replace};
use super::sync::{Line, Report};
use super::{log, namespaces, process, resolve, rlimits, spec};
use crate::error::{Doing, Error, Result};
use crate::sys::clone;
use nix::sched::CloneFlags;
use oci_spec::runtime::{Linux, Process};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
use std::convert::Infallible;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// What the caller asks for.
#[derive(Debug)]
pub struct Options {
    /// The container's name.
    pub id: String,
    /// What runs.
    pub process: Process,
    /// Where a terminal's other end goes.
    pub console_socket: Option<PathBuf>,
    /// Where the process's number is written.
    pub pid_file: Option<PathBuf>,
    /// Where a descriptor of the process goes.
    pub pidfd_socket: Option<PathBuf>,
    /// Whether the runtime ends once the process runs.
    pub detach: bool,
    /// Descriptors after the standard streams that stay open.
    pub preserved: u32,
    /// Whether a paused container is entered all the same, to run once it is resumed.
    pub ignore_paused: bool,
    /// A cgroup below the container's.
    pub cgroup: Option<PathBuf>,
    /// Standard streams, where they are not the runtime's own.
    pub streams: Option<Streams>,
    /// `USER[:GROUP]` as the image names them, in place of `process.user`.
    pub user: Option<String>,
}

/// The process inside, before it is.
struct Job<'a> {
    options: &'a Options,
    init: OwnedFd,
    foreign: CloneFlags,
    filter: Option<Filter>,
    console: Option<&'a OwnedFd>,
}

/// Runs a process in a container. Answers its exit code, or 0 when it was left behind.
pub fn exec(root: &Root, options: &Options) -> Result<i32> {
    let container = root.load(&options.id)?;
    match container.status()? {
        Status::Running | Status::Created => {}
        Status::Paused if options.ignore_paused => {}
        Status::Paused => {
            return Err(Error::invalid(
                &options.id,
                "cannot exec in a paused container (use --ignore-paused to override)",
            ));
        }
        status => return Err(Error::NotRunning { id: options.id.clone(), status: status.to_string() }),
    }
    spec::check_process(&options.process)?;
    let gone = || Error::NotRunning { id: options.id.clone(), status: Status::Stopped.to_string() };
    let init = container.init()?.ok_or_else(gone)?;
    let config = container.spec()?;
    let profile = config.linux().as_ref().and_then(|linux: &Linux| linux.seccomp().as_ref());
    let then = if options.detach { Then::Detach } else { Then::Attend };
    let receiver = receiver(&options.process, options.console_socket.as_deref(), then)?;
    let pidfd_socket = options.pidfd_socket.as_deref().map(PidfdSocket::connect).transpose()?;
    let job = Job {
        options,
        init,
        foreign: namespaces::foreign(container.saved.pid)?,
        filter: profile.map(Filter::of).transpose()?,
        console: receiver.as_ref().map(Receiver::inside),
    };
    let mut cgroups = container.saved.cgroups.clone();
    if let Some(below) = &options.cgroup {
        for directory in &mut cgroups.0 {
            directory.path.push(resolve::lexical(below).strip_prefix("/").unwrap_or(below));
        }
    }
    let (line, inside) = Line::pair()?;
    if then == Then::Attend {
        nix::sys::prctl::set_child_subreaper(true).doing(|| "become the reaper of the process".into())?;
    }
    let entrance = cgroups.entrance()?;
    let (forked, is_born_inside) = fork(0, &entrance)?;
    let Some(step) = forked else {
        drop(line);
        if let Err(error) = entrance.enter() {
            init::fail(&inside, &error);
        }
        drop(entrance);
        let Err(error) = enter(&job, &inside);
        init::fail(&inside, &error)
    };
    drop((entrance, inside));
    // Begun before the process is: what it prints may be answered with a signal at once.
    let attention = (then == Then::Attend).then(Attention::begin).transpose()?;
    let mut started = None;
    let joining = (!is_born_inside).then_some(&cgroups);
    match converse(&line, step, joining, options, pidfd_socket.as_ref(), &mut started) {
        Ok(pid) => match attention {
            Some(attention) => attention.attend(pid, receiver.map(Receiver::receive).transpose()?.flatten()),
            None => Ok(0),
        },
        Err(error) => {
            for process in [Some(step), started].into_iter().flatten() {
                if let Err(errno) = kill_process(process, Signal::KILL) {
                    log::debug(&format!("kill {process:?}: {errno}"));
                }
                if let Err(errno) = waitpid(Some(process), WaitOptions::empty()) {
                    log::debug(&format!("wait for {process:?}: {errno}"));
                }
            }
            Err(error)
        }
    }
}

/// The runtime's half: brings both processes into the cgroup if they were not born there, hears of the second one's number, and waits until it runs.
fn converse(
    line: &Line,
    step: Pid,
    joining: Option<&super::cgroup::Membership>,
    options: &Options,
    pidfd_socket: Option<&PidfdSocket>,
    started: &mut Option<Pid>,
) -> Result<i32> {
    if let Some(cgroups) = joining {
        cgroups.join_unified(step.as_raw_nonzero().get())?;
    }
    line.go(b"")?;
    loop {
        match line.wait()? {
            Report::Init(pid) => {
                *started = Pid::from_raw(pid);
                waitpid(Some(step), WaitOptions::empty()).doing(|| "wait for the process in between".into())?;
                rlimits::set(*started, &rlimits::early(options.process.rlimits().as_deref().unwrap_or_default()))?;
                if let Some(score) = options.process.oom_score_adj() {
                    fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string())
                        .doing(|| format!("set process.oomScoreAdj to {score}"))?;
                }
                line.go(b"")?;
            }
            Report::Ready => {
                let pid = started.ok_or_else(|| Error::Inside("the process inside has no number".into()))?;
                let pid = pid.as_raw_nonzero().get();
                if let Some(path) = &options.pid_file {
                    replace(path, pid.to_string().as_bytes())?;
                }
                if let Some(socket) = pidfd_socket {
                    socket.send(pid, pidfd::JOINED)?;
                }
                line.go(b"")?;
                return match line.wait()? {
                    Report::Failed(reason) => Err(Error::Inside(reason)),
                    _ => Ok(pid),
                };
            }
            Report::Failed(reason) => return Err(Error::Inside(reason)),
            Report::Ended => {
                return Err(Error::Inside(
                    "the process inside ended before it was ready; it may have been killed".into(),
                ));
            }
            Report::Map | Report::Hooks => return Err(Error::Inside("the process inside spoke out of turn".into())),
        }
    }
}

/// The process in between: enters the namespaces, so that its child is in all of them.
fn enter(job: &Job<'_>, line: &Line) -> Result<Infallible> {
    line.await_go()?;
    // Opened before the mount namespace changes: the host's, seen from inside too.
    let proc = resolve::host_proc()?;
    namespaces::enter(&job.init, job.foreign)?;
    if job.foreign.contains(CloneFlags::CLONE_NEWUSER) {
        become_inner_root()?;
    }
    match clone::fork(0).doing(|| "fork".into())? {
        Some(child) => {
            line.report(&Report::Init(child.as_raw_nonzero().get()))?;
            std::process::exit(0)
        }
        None => become_process(job, line, &proc),
    }
}

fn become_inner_root() -> Result<()> {
    let tolerant = |outcome: rustix::io::Result<()>| match outcome {
        Err(Errno::INVAL | Errno::PERM) => Ok(()),
        outcome => outcome.doing(|| "become root of the user namespace".into()),
    };
    let (uid, gid) = (rustix::fs::Uid::from_raw(0), rustix::fs::Gid::from_raw(0));
    tolerant(set_thread_res_gid(gid, gid, gid))?;
    tolerant(set_thread_res_uid(uid, uid, uid))
}

fn become_process(job: &Job<'_>, line: &Line, proc: &OwnedFd) -> Result<Infallible> {
    line.await_go()?;
    rustix::process::setsid().doing(|| "begin a session".into())?;
    if let Some(streams) = &job.options.streams {
        streams.take()?;
    }
    let named = job.options.user.as_deref().map(|user| process::with_user(&job.options.process, user, proc.as_fd()));
    let named = named.transpose()?;
    let asked = named.as_ref().unwrap_or(&job.options.process);
    process::label(proc.as_fd(), asked)?;
    if let Some(socket) = job.console.filter(|_| asked.terminal().unwrap_or(false)) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, "/", flags, Mode::empty()).doing(|| "open the container's root".into())?;
        Console::open(root.as_fd(), asked)?.take(socket)?;
    }
    let (preserved, variables) = activation(job.options.preserved);
    process::set_schedule(asked)?;
    process::descriptors(preserved)?;
    process::enter_directory(asked, true)?;
    process::become_user(asked, job.filter.as_ref(), process::can_drop_groups(proc.as_fd()))?;
    process::enter_directory(asked, false)?;
    let program = process::find_program(asked, &variables)?;
    line.report(&Report::Ready)?;
    line.await_go()?;
    init::finish(asked, job.filter.as_ref(), &program)
}
