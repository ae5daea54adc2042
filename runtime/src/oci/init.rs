//! What happens inside: from a forked copy of the runtime to the container's first program.
//!
//! Owns the order of the steps; what each step does stands in its own module. Invariant: an error is reported to whoever waits
//! for it (the runtime, later `start`), and the process ends.

use super::console::Console;
use super::mountpoints::Note;
use super::mounts::Ground;
use super::namespaces::Plan;
use super::rootfs::{self, Entry};
use super::seccomp::Filter;
use super::sync::{Line, Report};
use super::{cgroup, devices, hooks, mounts, process, resolve, rlimits, sysctl};
use crate::error::{Doing, Error, Result};
use crate::sys::{clone, exec};
use nix::sched::CloneFlags;
use oci_spec::runtime::{Hooks, Linux, LinuxNamespaceType as Kind, Mount, Process, Spec};
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid, openat};
use rustix::io::Errno;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use std::borrow::Cow;
use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// Everything the inside needs, made before the fork.
#[derive(Debug)]
pub struct Job<'a> {
    /// The container's name.
    pub id: &'a str,
    /// config.json.
    pub spec: &'a Spec,
    /// Its process.
    pub process: &'a Process,
    /// Its linux section.
    pub linux: &'a Linux,
    /// Its namespaces.
    pub plan: &'a Plan,
    /// Its seccomp profile.
    pub filter: Option<&'a Filter>,
    /// Absolute.
    pub bundle: &'a Path,
    /// Absolute.
    pub rootfs: &'a Path,
    /// The root filesystem's mount, if only the runtime may open it.
    pub rootfs_tree: Option<OwnedFd>,
    /// The sources of binds, if only the runtime may open them.
    pub trees: Vec<Option<OwnedFd>>,
    /// Where is noted what is made for mounts to stand on.
    pub note: Option<Note>,
    /// Its cgroup.
    pub cgroups: &'a cgroup::Membership,
    /// Where its terminal goes.
    pub console: Option<&'a OwnedFd>,
    /// Where it waits for `start`; without, it waits for the runtime.
    pub fifo: Option<OwnedFd>,
    /// How the root changes.
    pub entry: Entry,
    /// Whether it gets a session keyring of its own.
    pub keyring: bool,
    /// Descriptors after the standard streams that stay open.
    pub preserved: u32,
    /// Variables that the runtime adds.
    pub variables: Vec<String>,
    /// Its standard streams, where they are not the runtime's.
    pub streams: Option<&'a Streams>,
    /// Who it is, by the names of the image; without, who config.json says.
    pub user: Option<&'a str>,
}

/// Standard streams for a process inside.
#[derive(Debug)]
pub struct Streams {
    /// What it reads.
    pub input: OwnedFd,
    /// What it says.
    pub output: OwnedFd,
    /// What it complains of.
    pub errors: OwnedFd,
}

impl Streams {
    /// Makes them this process's own.
    pub fn take(&self) -> Result<()> {
        let doing = || "take the standard streams".to_owned();
        rustix::stdio::dup2_stdin(&self.input).doing(doing)?;
        rustix::stdio::dup2_stdout(&self.output).doing(doing)?;
        rustix::stdio::dup2_stderr(&self.errors).doing(doing)
    }
}

/// Runs the job. The process ends here.
pub fn run(job: Job<'_>, line: Line) -> ! {
    let outcome = if job.plan.needs_step() { step(job, &line) } else { become_init(job, &line, false) };
    let Err(error) = outcome;
    fail(&line, &error)
}

/// Tells the runtime why, and ends.
pub fn fail(line: &Line, error: &Error) -> ! {
    // If nobody listens any more there is nobody left to tell.
    drop(line.report(&Report::Failed(error.to_string())));
    std::process::exit(1)
}

/// The process in between: joins what its child is to be born in, tells the child's number, ends.
fn step(job: Job<'_>, line: &Line) -> Result<Infallible> {
    let left = job.plan.join()?;
    let makes_user = job.plan.makes(Kind::User);
    if makes_user {
        nix::sched::unshare(CloneFlags::CLONE_NEWUSER).doing(|| "make a user namespace".into())?;
        line.report(&Report::Map)?;
        line.await_go()?;
    }
    if job.plan.has(Kind::User) {
        become_inner_root()?;
    }
    job.plan.shift_clocks()?;
    let birth = job.plan.birth() - CloneFlags::CLONE_NEWUSER;
    match clone::fork(birth.bits() as u64).doing(|| "make the namespaces of linux.namespaces".into())? {
        Some(child) => {
            line.report(&Report::Init(child.as_raw_nonzero().get()))?;
            std::process::exit(0)
        }
        None => {
            for other in left {
                other.enter()?;
            }
            become_init(job, line, makes_user)
        }
    }
}

/// The root of a user namespace, if that has one; else whoever the caller is in it.
fn become_inner_root() -> Result<()> {
    let tolerant = |outcome: rustix::io::Result<()>| match outcome {
        Err(Errno::INVAL | Errno::PERM) => Ok(()),
        outcome => outcome.doing(|| "become root of the user namespace".into()),
    };
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    tolerant(set_thread_res_gid(gid, gid, gid))?;
    tolerant(set_thread_res_uid(uid, uid, uid))?;
    tolerant(set_thread_groups(&[]))
}

fn become_init(mut job: Job<'_>, line: &Line, is_mapped: bool) -> Result<Infallible> {
    if job.plan.makes(Kind::User) && !is_mapped {
        line.report(&Report::Map)?;
    }
    // From here on it is in its cgroup, and its state is written down.
    let state = line.await_go()?;
    if job.plan.makes(Kind::User) && !is_mapped {
        become_inner_root()?;
    }
    if job.plan.makes(Kind::Cgroup) {
        nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP).doing(|| "make a cgroup namespace".into())?;
    }
    rustix::process::setsid().doing(|| "begin a session".into())?;
    if let Some(streams) = job.streams {
        streams.take()?;
    }
    if job.keyring {
        process::new_keyring(job.id)?;
    }
    let proc = resolve::host_proc()?;
    name_host(job.spec)?;
    let root = furnish(&mut job)?;
    let console = open_console(&job, &root)?;
    sysctl::set(proc.as_fd(), job.linux.sysctl().as_ref().unwrap_or(&Default::default()))?;
    run_hooks(&job, line, &state)?;
    rootfs::protect(root.as_fd(), job.linux.readonly_paths().as_deref().unwrap_or_default())?;
    rootfs::mask(root.as_fd(), job.linux.masked_paths().as_deref().unwrap_or_default())?;
    process::label(proc.as_fd(), job.process)?;
    if let (Some(console), Some(socket)) = (console, job.console) {
        console.take(socket)?;
    }
    let read_only = job.spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false);
    let propagation = job.linux.rootfs_propagation().as_deref().unwrap_or_default();
    rootfs::enter(root.as_fd(), job.entry, read_only, propagation)?;
    drop(root);
    if let Some(personality) = job.linux.personality() {
        process::set_personality(personality)?;
    }
    let process = process_of(&job, &proc)?;
    let program = settle(&job, &process, &proc)?;
    line.report(&Report::Ready)?;
    let waiter = wait(&job, line, &proc)?;
    let Err(error) = start(&job, &process, &program, &state);
    match waiter {
        // `start` reads what is written here; nothing, and the end of it, means that the program runs.
        Some(fifo) => {
            rustix::io::write(&fifo, error.to_string().as_bytes()).doing(|| "tell `start` of a failure".into())?;
            std::process::exit(1)
        }
        None => Err(error),
    }
}

fn name_host(spec: &Spec) -> Result<()> {
    if let Some(name) = spec.hostname() {
        rustix::system::sethostname(name.as_bytes()).doing(|| format!("set hostname {name:?}"))?;
    }
    if let Some(name) = spec.domainname() {
        rustix::system::setdomainname(name.as_bytes()).doing(|| format!("set domainname {name:?}"))?;
    }
    Ok(())
}

/// The root filesystem with all that is mounted and made in it.
fn furnish(job: &mut Job<'_>) -> Result<OwnedFd> {
    let propagation = job.linux.rootfs_propagation().as_deref().unwrap_or_default();
    let root = rootfs::prepare(job.rootfs, job.rootfs_tree.take(), propagation)?;
    let label = job.linux.mount_label().as_deref().filter(|_| Path::new("/sys/fs/selinux/enforce").exists());
    let ground = Ground {
        root: root.as_fd(),
        bundle: job.bundle,
        user_namespace: job.plan.has(Kind::User) || super::state::rootless(),
        cgroups: job.cgroups,
        cgroup_namespace: job.plan.has(Kind::Cgroup),
        note: job.note.as_ref(),
        label,
    };
    let mounts: &[Mount] = job.spec.mounts().as_deref().unwrap_or_default();
    mounts::mount_all(&ground, mounts, &mut job.trees)?;
    let dev_is_bound =
        mounts.iter().any(|mount| mounts::is_bind(mount) && resolve::lexical(mount.destination()) == Path::new("/dev"));
    if !dev_is_bound {
        let devices = job.linux.devices().as_deref().unwrap_or_default();
        devices::make_all(root.as_fd(), devices, ground.user_namespace)?;
    }
    Ok(root)
}

fn open_console(job: &Job<'_>, root: &OwnedFd) -> Result<Option<Console>> {
    if !job.process.terminal().unwrap_or(false) {
        return Ok(None);
    }
    let console = Console::open(root.as_fd(), job.process)?;
    console.bind(root.as_fd())?;
    Ok(Some(console))
}

/// Whether any hook runs before the root changes, and where: those of the runtime outside, those of the container here.
pub fn has_outer_hooks(hooks: &Hooks) -> bool {
    [hooks.prestart(), hooks.create_runtime()].iter().any(|list| list.as_ref().is_some_and(|list| !list.is_empty()))
}

fn run_hooks(job: &Job<'_>, line: &Line, state: &[u8]) -> Result<()> {
    let Some(all) = job.spec.hooks() else { return Ok(()) };
    if has_outer_hooks(all) {
        line.report(&Report::Hooks)?;
        line.await_go()?;
    }
    hooks::run("createContainer", all.create_container().as_ref(), state, job.bundle)
}

/// The process of config.json, with a user of the image in place of its own.
fn process_of<'a>(job: &Job<'a>, proc: &OwnedFd) -> Result<Cow<'a, Process>> {
    let Some(user) = job.user else { return Ok(Cow::Borrowed(job.process)) };
    process::with_user(job.process, user, proc.as_fd()).map(Cow::Owned)
}

/// Gives up what only the runtime may do, and finds the program.
fn settle(job: &Job<'_>, process: &Process, proc: &OwnedFd) -> Result<process::Program> {
    process::set_schedule(process)?;
    process::descriptors(job.preserved)?;
    process::enter_directory(process, true)?;
    process::become_user(process, job.filter, process::can_drop_groups(proc.as_fd()))?;
    process::enter_directory(process, false)?;
    process::find_program(process, &job.variables)
}

/// Waits for the order to start. With a fifo it answers the end that keeps `start` waiting for news.
fn wait(job: &Job<'_>, line: &Line, proc: &OwnedFd) -> Result<Option<OwnedFd>> {
    let Some(fifo) = &job.fifo else {
        line.await_go()?;
        return Ok(None);
    };
    // The root has changed, so the fifo is reached through the descriptor, in the host's procfs.
    let name = format!("self/fd/{}", fifo.as_raw_fd());
    let doing = || "wait for `start` at exec.fifo".to_owned();
    let opened = openat(proc, name.as_str(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).doing(doing)?;
    match FileType::from_raw_mode(resolve::stat(&opened)?.st_mode) {
        FileType::Fifo => Ok(Some(opened)),
        _ => Err(Error::invalid("exec.fifo", "is not a fifo any more")),
    }
}

fn start(job: &Job<'_>, process: &Process, program: &process::Program, state: &[u8]) -> Result<Infallible> {
    let startup = job.spec.hooks().as_ref().and_then(|all| all.start_container().as_ref());
    hooks::run("startContainer", startup, state, process.cwd())?;
    finish(process, job.filter, program)
}

/// The very last steps of any process inside.
pub fn finish(process: &Process, filter: Option<&Filter>, program: &process::Program) -> Result<Infallible> {
    exec::restore_signals().doing(|| "restore signals".into())?;
    rlimits::set(None, &rlimits::late(process.rlimits().as_deref().unwrap_or_default()))?;
    if let Some(filter) = filter.filter(|_| process.no_new_privileges().unwrap_or(false)) {
        filter.load()?;
    }
    Err(program.execute())
}
