//! `create` and `run`: a bundle becomes a container.
//!
//! Owns the runtime's half of the conversation with the process that becomes init. Invariant: an error leaves no process, cgroup
//! or directory behind.

use super::cgroup::entrance::Entrance;
use super::cgroup::path::CgroupPath;
use super::cgroup::{self, Membership};
use super::console::Receiver;
use super::foreground::Attention;
use super::id_maps::IdMaps;
use super::init::{self, Job, Streams};
use super::mount_options::{IdMap, Options as MountOptions};
use super::mountpoints::Note;
use super::namespaces::Plan;
use super::pidfd::{self, PidfdSocket};
use super::rootfs::{Entry, clone_tree};
use super::seccomp::Filter;
use super::state::{Claim, FIFO, Root, Saved, Status, replace, start_time};
use super::sync::{Line, Report};
use super::{delete, hooks, idle_namespace, log, mounts, rlimits, spec, state, sysctl};
use crate::error::{Doing, Error, Result};
use crate::sys::clone;
use crate::sys::mount::{Attributes, set_attributes};
use oci_spec::runtime::{LinuxNamespaceType as Kind, Mount, Process, Spec};
use rustix::fs::{CWD, FileType, Mode, OFlags, chmod, mknodat, openat};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What the caller asks for.
#[derive(Debug)]
pub struct Options {
    /// The container's name.
    pub id: String,
    /// The directory of config.json.
    pub bundle: PathBuf,
    /// Where a terminal's other end goes.
    pub console_socket: Option<PathBuf>,
    /// Where init's number is written.
    pub pid_file: Option<PathBuf>,
    /// Where a descriptor of init goes.
    pub pidfd_socket: Option<PathBuf>,
    /// How the root changes.
    pub entry: Entry,
    /// Whether the container gets a session keyring of its own.
    pub keyring: bool,
    /// Descriptors after the standard streams that stay open.
    pub preserved: u32,
    /// Whether `linux.cgroupsPath` has systemd's form.
    pub systemd_cgroup: bool,
    /// The root filesystem as a mount that is attached nowhere yet, to be put at `root.path`.
    pub rootfs_tree: Option<OwnedFd>,
    /// Standard streams, where they are not the runtime's own.
    pub streams: Option<Streams>,
    /// Where is noted what is made in the root filesystem for mounts to stand on.
    pub note: Option<PathBuf>,
    /// `USER[:GROUP]` as the image names them, in place of `process.user`.
    pub user: Option<String>,
}

/// What becomes of the container after it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Init waits for `start`.
    Wait,
    /// It starts, and the runtime ends.
    Detach,
    /// It starts, and the runtime stays until it has ended.
    Attend,
}

/// What was made.
#[derive(Debug)]
struct Made {
    pid: i32,
    line: Line,
    console: Option<OwnedFd>,
    spec: Spec,
    saved: Saved,
}

/// Makes a container that waits for `start`.
pub fn create(root: &Root, options: &Options) -> Result<()> {
    make(root, options, Then::Wait).map(drop)
}

/// Makes a container, starts it, and unless `detach` waits for its end and deletes it (unless `keep`). Answers the exit code.
pub fn run(root: &Root, options: &Options, detach: bool, keep: bool) -> Result<i32> {
    let made = make(root, options, if detach { Then::Detach } else { Then::Attend })?;
    let remove = || delete::delete(root, &options.id, true);
    let attention = match begin(&made, &options.bundle, detach) {
        Ok(Some(attention)) => attention,
        Ok(None) => return Ok(0),
        Err(error) => {
            remove()?;
            return Err(error);
        }
    };
    let code = attention.attend(made.pid, made.console)?;
    if !keep {
        remove()?;
    }
    Ok(code)
}

/// A container whose process runs, as a child of the caller.
#[derive(Debug)]
pub struct Running {
    /// Its process.
    pub pid: i32,
    /// The other end of its terminal.
    pub console: Option<OwnedFd>,
    /// The caller's signals, which wait since before it ran.
    pub attention: Attention,
}

/// Makes a container and starts it, for a caller who stays with it. An error leaves nothing.
pub fn launch(root: &Root, options: &Options) -> Result<Running> {
    let made = make(root, options, Then::Attend)?;
    match begin(&made, &options.bundle, false) {
        Ok(Some(attention)) => Ok(Running { pid: made.pid, console: made.console, attention }),
        Ok(None) => Err(Error::Inside("nobody stays with the container".into())),
        Err(error) => {
            delete::delete(root, &options.id, true)?;
            // It has ended, and is ours to reap.
            if let Some(init) = Pid::from_raw(made.pid)
                && let Err(errno) = waitpid(Some(init), WaitOptions::empty())
            {
                log::debug(&format!("wait for process {init:?}: {errno}"));
            }
            Err(error)
        }
    }
}

/// Lets the process begin, and runs the hooks that follow.
fn begin(made: &Made, bundle: &Path, detach: bool) -> Result<Option<Attention>> {
    let attention = (!detach).then(Attention::begin).transpose()?;
    made.line.go(b"")?;
    if let Report::Failed(reason) = made.line.wait()? {
        return Err(Error::Inside(reason));
    }
    let poststart = made.spec.hooks().as_ref().and_then(|all| all.poststart().as_ref());
    hooks::run("poststart", poststart, &hooks::input(&made.saved.state(Status::Running))?, bundle)?;
    Ok(attention)
}

fn make(root: &Root, options: &Options, then: Then) -> Result<Made> {
    let bundle = fs::canonicalize(&options.bundle).doing(|| format!("bundle {}", options.bundle.display()))?;
    let (spec, config) = spec::load(&bundle)?;
    spec::check(&spec)?;
    let process = spec::process(&spec)?;
    let linux = spec.linux().as_ref().ok_or_else(|| Error::invalid("linux", "is missing"))?;
    let rootfs = spec::rootfs(&spec, &bundle)?;
    let plan = Plan::new(linux)?;
    sysctl::check(&plan, linux.sysctl().as_ref().unwrap_or(&Default::default()))?;
    let maps = IdMaps::of(linux);
    if plan.makes(Kind::User) {
        maps.check()?;
    }
    let filter = linux.seccomp().as_ref().map(Filter::of).transpose()?;
    let receiver = receiver(process, options.console_socket.as_deref(), then)?;
    let pidfd_socket = options.pidfd_socket.as_deref().map(PidfdSocket::connect).transpose()?;

    let claim = root.claim(&options.id)?;
    replace(&claim.dir().join(spec::CONFIG), &config)?;
    let fifo = (then == Then::Wait).then(|| make_fifo(claim.dir())).transpose()?;
    let note = options.note.as_deref().map(Note::open).transpose()?;
    let (own_tree, trees) = open_trees(&plan, &maps, &spec, &rootfs, &bundle)?;
    let given_tree = options.rootfs_tree.as_ref().map(OwnedFd::try_clone).transpose();
    let rootfs_tree = given_tree.doing(|| "keep the root filesystem's mount".into())?.or(own_tree);
    let path =
        CgroupPath::parse(linux.cgroups_path().as_deref(), &options.id, options.systemd_cgroup, state::rootless())?;
    let cgroups = cgroup::create(&path, linux.resources().as_ref())?;
    let saved = Saved {
        oci_version: spec.version().clone(),
        id: options.id.clone(),
        bundle: bundle.clone(),
        rootfs: rootfs.clone(),
        pid: 0,
        start_time: 0,
        created: log::rfc3339(SystemTime::now()),
        uid: rustix::process::getuid().as_raw(),
        annotations: spec.annotations().clone().unwrap_or_default(),
        cgroups,
    };
    let (preserved, variables) = activation(options.preserved);
    let job = Job {
        id: &options.id,
        spec: &spec,
        process,
        linux,
        plan: &plan,
        filter: filter.as_ref(),
        bundle: &bundle,
        rootfs: &rootfs,
        rootfs_tree,
        trees,
        note,
        cgroups: &saved.cgroups.clone(),
        console: receiver.as_ref().map(Receiver::inside),
        fifo,
        entry: options.entry,
        keyring: options.keyring,
        preserved,
        variables,
        streams: options.streams.as_ref(),
        user: options.user.as_deref(),
    };
    let mut birth = Birth { claim, saved, child: None, init: None, is_born_inside: false };
    let made = birth.attend(job, &maps, then, options.pid_file.as_deref());
    match made.and_then(|made| pidfd_socket.map_or(Ok(()), |socket| socket.send(made.0, pidfd::INIT)).map(|()| made)) {
        Ok((pid, line)) => {
            let console = receiver.map(Receiver::receive).transpose()?.flatten();
            birth.claim.keep();
            Ok(Made { pid, line, console, saved: birth.saved, spec })
        }
        Err(error) => {
            birth.undo()?;
            Err(error)
        }
    }
}

/// A container on its way.
#[derive(Debug)]
struct Birth {
    claim: Claim,
    saved: Saved,
    /// The process that was forked, and init, which may be another.
    child: Option<Pid>,
    init: Option<Pid>,
    /// Whether the child began in its cgroup of version 2, or there is none.
    is_born_inside: bool,
}

/// Forks into new namespaces, and into the cgroup of version 2 where the kernel lets us. Answers whether it did.
pub fn fork(birth: u64, entrance: &Entrance) -> Result<(Option<Pid>, bool)> {
    let doing = || "make a process in the namespaces of linux.namespaces".to_owned();
    match clone::fork_into(birth, entrance.unified()) {
        Err(error) if entrance.unified().is_some() => {
            log::debug(&format!("no process is born in the cgroup: {error}"));
            Ok((clone::fork(birth).doing(doing)?, false))
        }
        forked => Ok((forked.doing(doing)?, true)),
    }
}

impl Birth {
    /// Forks, and answers what the inside asks until everything stands.
    fn attend(&mut self, job: Job<'_>, maps: &IdMaps, then: Then, pid_file: Option<&Path>) -> Result<(i32, Line)> {
        let (line, inside) = Line::pair()?;
        if then == Then::Attend {
            // A grandchild becomes our child when the process in between ends.
            nix::sys::prctl::set_child_subreaper(true).doing(|| "become the reaper of the container".into())?;
        }
        let (spec, process, has_step) = (job.spec, job.process, job.plan.needs_step());
        let birth = if has_step { 0 } else { job.plan.birth().bits() as u64 };
        let entrance = self.saved.cgroups.entrance()?;
        let (forked, is_born_inside) = fork(birth, &entrance)?;
        self.is_born_inside = is_born_inside;
        let Some(child) = forked else {
            drop(line);
            if let Err(error) = entrance.enter() {
                init::fail(&inside, &error);
            }
            drop(entrance);
            init::run(job, inside)
        };
        drop((entrance, inside, job.trees, job.rootfs_tree));
        self.child = Some(child);
        let makes_user = job.plan.makes(Kind::User);
        if !has_step && !makes_user {
            self.welcome(child, process, &line)?;
        }
        loop {
            match line.wait()? {
                Report::Map => {
                    maps.write(child.as_raw_nonzero().get())?;
                    if has_step { line.go(b"")? } else { self.welcome(child, process, &line)? }
                }
                Report::Init(pid) => {
                    let init = Pid::from_raw(pid).ok_or_else(|| Error::Inside("init has no number".into()))?;
                    waitpid(Some(child), WaitOptions::empty()).doing(|| "wait for the process in between".into())?;
                    self.child = None;
                    self.welcome(init, process, &line)?;
                }
                Report::Hooks => {
                    self.run_outer_hooks(spec)?;
                    line.go(b"")?;
                }
                Report::Ready => break,
                Report::Failed(reason) => return Err(Error::Inside(reason)),
                Report::Ended => {
                    return Err(Error::Inside(
                        "the process inside ended before it was ready; it may have been killed".into(),
                    ));
                }
            }
        }
        if let Some(path) = pid_file {
            replace(path, self.saved.pid.to_string().as_bytes())?;
        }
        Ok((self.saved.pid, line))
    }

    /// Init exists: everything that is done to it from outside, then it may go on.
    fn welcome(&mut self, init: Pid, process: &Process, line: &Line) -> Result<()> {
        self.init = Some(init);
        let pid = init.as_raw_nonzero().get();
        if !self.is_born_inside {
            self.saved.cgroups.join_unified(pid)?;
        }
        rlimits::set(Some(init), &rlimits::early(process.rlimits().as_deref().unwrap_or_default()))?;
        if let Some(score) = process.oom_score_adj() {
            fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string())
                .doing(|| format!("set process.oomScoreAdj to {score}"))?;
        }
        self.saved.pid = pid;
        self.saved.start_time = start_time(pid).unwrap_or(0);
        self.saved.write(self.claim.dir())?;
        line.go(&hooks::input(&self.saved.state(Status::Created))?)
    }

    fn run_outer_hooks(&self, spec: &Spec) -> Result<()> {
        let Some(all) = spec.hooks() else { return Ok(()) };
        let state = hooks::input(&self.saved.state(Status::Created))?;
        hooks::run("prestart", all.prestart().as_ref(), &state, &self.saved.bundle)?;
        hooks::run("createRuntime", all.create_runtime().as_ref(), &state, &self.saved.bundle)
    }

    /// Ends the processes and removes what was made. The directory goes with the claim.
    fn undo(self) -> Result<()> {
        for process in [self.init, self.child].into_iter().flatten() {
            // It may have ended by itself, and then it only waits to be reaped.
            if let Err(errno) = kill_process(process, Signal::KILL) {
                log::debug(&format!("kill {process:?}: {errno}"));
            }
            if let Err(errno) = waitpid(Some(process), WaitOptions::empty()) {
                log::debug(&format!("wait for {process:?}: {errno}"));
            }
        }
        let Birth { claim, saved, .. } = self;
        let removed = Membership::remove(&saved.cgroups);
        drop(claim);
        removed
    }
}

/// Where the terminal goes, if there is one.
pub fn receiver(process: &Process, socket: Option<&Path>, then: Then) -> Result<Option<Receiver>> {
    let terminal = process.terminal().unwrap_or(false);
    match (terminal, socket, then) {
        (true, Some(socket), _) => Receiver::caller(socket).map(Some),
        (true, None, Then::Attend) => Receiver::ours().map(Some),
        (true, None, _) => Err(Error::invalid(
            "--console-socket",
            "cannot allocate tty if the runtime will detach without setting console socket",
        )),
        (false, Some(_), _) => Err(Error::invalid(
            "--console-socket",
            "cannot use console socket if the runtime will not allocate a tty: process.terminal is not true",
        )),
        (false, None, _) => Ok(None),
    }
}

/// The sockets that a service manager hands over (sd_listen_fds(3)) are the container's.
pub fn activation(preserved: u32) -> (u32, Vec<String>) {
    let count = std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse::<u32>().ok()).unwrap_or(0);
    let variables = if count == 0 { Vec::new() } else { vec![format!("LISTEN_FDS={count}"), "LISTEN_PID=1".into()] };
    (preserved + count, variables)
}

fn make_fifo(dir: &Path) -> Result<OwnedFd> {
    let path = dir.join(FIFO);
    let doing = || format!("make {}", path.display());
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).doing(doing)?;
    // Whoever the container's user is, it is he who says that he is ready.
    chmod(&path, Mode::from_raw_mode(0o622)).doing(doing)?;
    openat(CWD, &path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).doing(doing)
}

type Trees = (Option<OwnedFd>, Vec<Option<OwnedFd>>);

/// What a user namespace might not be let through to, and what only the host may map, is opened here.
fn open_trees(plan: &Plan, maps: &IdMaps, spec: &Spec, rootfs: &Path, bundle: &Path) -> Result<Trees> {
    let wanted = plan.makes(Kind::User) && rustix::process::geteuid().is_root();
    let rootfs_tree = wanted.then(|| clone_tree(rootfs, true).ok()).flatten();
    let mut trees = Vec::new();
    for mount in spec.mounts().iter().flatten() {
        trees.push(open_tree(mount, maps, bundle, wanted)?);
    }
    Ok((rootfs_tree, trees))
}

fn open_tree(mount: &Mount, maps: &IdMaps, bundle: &Path, wanted: bool) -> Result<Option<OwnedFd>> {
    let destination = mount.destination().display().to_string();
    let words = mount.options().clone().unwrap_or_default();
    let options = MountOptions::parse(&words, mount.typ().as_deref().unwrap_or("none"), &destination)?;
    let own = IdMaps::new(mount.uid_mappings().as_deref(), mount.gid_mappings().as_deref());
    let is_mapped = options.id_map != IdMap::No || own != IdMaps::default();
    if !mounts::is_bind(mount) {
        return match is_mapped {
            true => {
                Err(Error::unsupported(format!("mounts: {destination}: uidMappings"), "only binds can map owners here"))
            }
            false => Ok(None),
        };
    }
    if !wanted && !is_mapped {
        return Ok(None);
    }
    let recursive = options.bind == super::mount_options::Bind::Recursive;
    let tree = match clone_tree(&mounts::source(mount, bundle)?, recursive) {
        Err(_) if !is_mapped => return Ok(None),
        outcome => outcome?,
    };
    if is_mapped {
        let maps = if own == IdMaps::default() { maps } else { &own };
        maps.check()?;
        let namespace = idle_namespace::make(maps)?;
        let change = Attributes { set: libc::MOUNT_ATTR_IDMAP, ..Attributes::default() };
        set_attributes(tree.as_fd(), change, options.id_map == IdMap::Recursive, Some(namespace.as_fd()))
            .doing(|| format!("map the owners of mount {destination}; its filesystem may not be able to"))?;
    }
    Ok(Some(tree))
}
