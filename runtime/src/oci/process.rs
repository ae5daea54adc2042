//! The last steps of a process inside: from the runtime's own privileges to those of config.json, and into the program.
//!
//! Invariant: after `become_user` nothing is left of what the runtime may do; after `descriptors`, nothing of what it has open.

use super::capabilities::Wanted;
use super::seccomp::Filter;
use super::{resolve, user};
use crate::error::{Doing, Error, Result};
use crate::sys::{descriptors, keyring, schedule};
use oci_spec::runtime::{
    IOPriorityClass, LinuxIOPriority, LinuxPersonality, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, Process, Scheduler,
};
use rustix::fs::{Access, FileType, Gid, Uid};
use rustix::io::Errno;
use rustix::thread::{
    set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// Where programs are looked for when the environment does not say.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Of linux/personality.h.
const PER_LINUX32: i32 = 8;

/// What execve(2) takes.
#[derive(Debug)]
pub struct Program {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

/// A new session keyring of the container's, so that it does not use the caller's.
pub fn new_keyring(id: &str) -> Result<()> {
    let name = CString::new(format!("_ses.{id}")).unwrap_or_default();
    match keyring::join_session(&name) {
        // A kernel without keyrings, or a filter around us: then there is no keyring to share either.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(()),
        outcome => outcome.doing(|| "make a session keyring".into()),
    }
}

/// Names the security label that the program will run under.
pub fn label(proc: BorrowedFd<'_>, process: &Process) -> Result<()> {
    if let Some(label) = process.selinux_label().as_deref().filter(|label| !label.is_empty()) {
        resolve::write_proc(proc, "self/attr/exec", label)?;
    }
    if let Some(profile) = process.apparmor_profile().as_deref().filter(|profile| !profile.is_empty()) {
        if !Path::new("/sys/kernel/security/apparmor").exists() && !resolve::exists(proc, "self/attr/apparmor") {
            return Err(Error::unsupported("process.apparmorProfile", "this kernel has no AppArmor"));
        }
        let file =
            if resolve::exists(proc, "self/attr/apparmor/exec") { "self/attr/apparmor/exec" } else { "self/attr/exec" };
        resolve::write_proc(proc, file, &format!("exec {profile}"))?;
    }
    Ok(())
}

/// Sets `linux.personality`.
pub fn set_personality(personality: &LinuxPersonality) -> Result<()> {
    if personality.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(Error::unsupported("linux.personality.flags", "the specification names none"));
    }
    let domain = match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => PER_LINUX32,
    };
    nix::sys::personality::set(nix::sys::personality::Persona::from_bits_retain(domain))
        .doing(|| "set linux.personality".into())?;
    Ok(())
}

/// Sets `process.scheduler` and `process.ioPriority`.
pub fn set_schedule(process: &Process) -> Result<()> {
    if let Some(scheduler) = process.scheduler() {
        schedule::set_scheduler(scheduler_attributes(scheduler)?).doing(|| "set process.scheduler".into())?;
    }
    if let Some(priority) = process.io_priority() {
        set_io_priority(priority)?;
    }
    Ok(())
}

fn set_io_priority(asked: &LinuxIOPriority) -> Result<()> {
    let class = match asked.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u32::try_from(asked.priority()) {
        Ok(level) if level < 8 => schedule::set_io_priority(class, level).doing(|| "set process.ioPriority".into()),
        _ => Err(Error::invalid("process.ioPriority", format!("priority {} is not in 0..=7", asked.priority()))),
    }
}

fn scheduler_attributes(asked: &Scheduler) -> Result<schedule::Attributes> {
    let policy = match asked.policy() {
        LinuxSchedulerPolicy::SchedOther => libc::SCHED_OTHER,
        LinuxSchedulerPolicy::SchedFifo => libc::SCHED_FIFO,
        LinuxSchedulerPolicy::SchedRr => libc::SCHED_RR,
        LinuxSchedulerPolicy::SchedBatch => libc::SCHED_BATCH,
        LinuxSchedulerPolicy::SchedIdle => libc::SCHED_IDLE,
        LinuxSchedulerPolicy::SchedDeadline => libc::SCHED_DEADLINE,
        LinuxSchedulerPolicy::SchedIso => {
            return Err(Error::unsupported("process.scheduler: SCHED_ISO", "Linux never had it"));
        }
    };
    let mut flags = 0;
    for flag in asked.flags().iter().flatten() {
        flags |= match flag {
            LinuxSchedulerFlag::SchedResetOnFork => libc::SCHED_FLAG_RESET_ON_FORK,
            LinuxSchedulerFlag::SchedFlagReclaim => libc::SCHED_FLAG_RECLAIM,
            LinuxSchedulerFlag::SchedFlagDLOverrun => libc::SCHED_FLAG_DL_OVERRUN,
            LinuxSchedulerFlag::SchedFlagKeepPolicy => libc::SCHED_FLAG_KEEP_POLICY,
            LinuxSchedulerFlag::SchedFlagKeepParams => libc::SCHED_FLAG_KEEP_PARAMS,
            LinuxSchedulerFlag::SchedFlagUtilClampMin | LinuxSchedulerFlag::SchedFlagUtilClampMax => {
                return Err(Error::unsupported(format!("process.scheduler.flags: {flag}"), "it names no value"));
            }
        };
    }
    Ok(schedule::Attributes {
        size: 0,
        policy: policy as u32,
        flags: flags as u64,
        nice: asked.nice().unwrap_or(0),
        priority: asked.priority().unwrap_or(0) as u32,
        runtime: asked.runtime().unwrap_or(0),
        deadline: asked.deadline().unwrap_or(0),
        period: asked.period().unwrap_or(0),
    })
}

/// Gives the standard streams to the user, or the program could not open /dev/stdout. The null device is everybody's.
fn own_streams(uid: u32) -> Result<()> {
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(stat) = rustix::fs::fstat(stream) else { continue };
        let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        let is_null = is_device && rustix::fs::major(stat.st_rdev) == 1;
        if stat.st_uid == uid || is_null {
            continue;
        }
        match rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), None) {
            // An owner that the user namespace cannot name, a read-only filesystem, a socket: the stream stays as it is.
            Err(Errno::INVAL | Errno::PERM | Errno::ROFS | Errno::NOSYS) => {}
            outcome => outcome.doing(|| format!("give the standard streams to user {uid}"))?,
        }
    }
    Ok(())
}

/// Turns into the user of config.json. A filter that may be loaded only with privilege is loaded while there is some.
pub fn become_user(process: &Process, filter: Option<&Filter>, can_drop_groups: bool) -> Result<()> {
    let wanted = Wanted::of(process.capabilities().as_ref())?;
    if process.no_new_privileges().unwrap_or(false) {
        set_no_new_privs(true).doing(|| "set process.noNewPrivileges".into())?;
    } else if let Some(filter) = filter {
        filter.load()?;
    }
    wanted.bound()?;
    let user = process.user();
    own_streams(user.uid())?;
    set_keep_capabilities(true).doing(|| "keep capabilities over the change of user".into())?;
    let groups: Vec<Gid> = user.additional_gids().iter().flatten().map(|gid| Gid::from_raw(*gid)).collect();
    // Where the kernel denies setgroups(2) the caller's groups stay, as they can neither be dropped nor used to gain anything.
    if can_drop_groups {
        set_thread_groups(&groups).doing(|| format!("set process.user.additionalGids to {groups:?}"))?;
    } else if !groups.is_empty() {
        return Err(Error::unsupported("process.user.additionalGids", "this user namespace denies setgroups"));
    }
    let gid = Gid::from_raw(user.gid());
    set_thread_res_gid(gid, gid, gid).doing(|| format!("become group {}", user.gid()))?;
    let uid = Uid::from_raw(user.uid());
    set_thread_res_uid(uid, uid, uid).doing(|| format!("become user {}", user.uid()))?;
    set_keep_capabilities(false).doing(|| "drop capabilities".into())?;
    wanted.apply()?;
    let umask = rustix::fs::Mode::from_raw_mode(user.umask().unwrap_or(0o022) & 0o777);
    rustix::process::umask(umask);
    Ok(())
}

/// Enters the working directory and proves that it lies inside: a descriptor that was left open could lead out (CVE-2024-21626).
pub fn enter_directory(process: &Process, as_root: bool) -> Result<()> {
    let cwd = process.cwd();
    match rustix::process::chdir(cwd) {
        // Perhaps only root may enter, or only the user may: both get their turn.
        Err(Errno::ACCESS) if as_root => return Ok(()),
        Err(Errno::NOENT) if as_root => {
            fs::create_dir_all(cwd).doing(|| format!("make process.cwd {}", cwd.display()))?;
            rustix::process::chdir(cwd).doing(|| format!("enter process.cwd {}", cwd.display()))?;
        }
        outcome => outcome.doing(|| format!("chdir to cwd ({:?}) set in config.json failed", cwd.display()))?,
    }
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) if path.to_bytes().starts_with(b"/") => Ok(()),
        Ok(_) | Err(Errno::NOENT) => Err(Error::invalid(
            "process.cwd",
            "current working directory is outside of container mount namespace root -- possible container breakout detected",
        )),
        Err(errno) => Err(errno).doing(|| "ask for the working directory".into()),
    }
}

/// Marks everything that was left open, but for `preserved` descriptors after the standard streams.
pub fn descriptors(preserved: u32) -> Result<()> {
    descriptors::close_on_exec_from(3 + preserved).doing(|| "close descriptors".into())
}

/// Finds the program, as the user that will run it.
pub fn find_program(process: &Process, extra: &[String]) -> Result<Program> {
    let arguments = process.args().as_deref().unwrap_or_default();
    let mut environment: Vec<String> = process.env().clone().unwrap_or_default();
    environment.extend_from_slice(extra);
    let value = |prefix: &str| environment.iter().rev().find_map(|entry| entry.strip_prefix(prefix)).map(str::to_owned);
    let (search, has_home) = (value("PATH="), value("HOME=").is_some());
    if !has_home {
        environment.push(format!("HOME={}", home(process.user().uid())));
    }
    let name = arguments.first().map_or("", String::as_str);
    let path = look_up(name, search.as_deref().unwrap_or(PATH_DEFAULT))?;
    let c_string = |text: &str| {
        CString::new(text).map_err(|_| Error::invalid("process", format!("{text:?} has a null byte inside")))
    };
    Ok(Program {
        path: c_string(&path.to_string_lossy())?,
        arguments: arguments.iter().map(|word| c_string(word)).collect::<Result<_>>()?,
        environment: environment.iter().map(|entry| c_string(entry)).collect::<Result<_>>()?,
    })
}

fn look_up(name: &str, path: &str) -> Result<PathBuf> {
    let usable = |candidate: &Path| match rustix::fs::stat(candidate) {
        Err(errno) => Err(errno),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Err(Errno::ISDIR),
        Ok(_) => rustix::fs::access(candidate, Access::EXEC_OK),
    };
    if name.contains('/') {
        return usable(Path::new(name)).doing(|| format!("exec: {name:?}: stat {name}")).map(|()| name.into());
    }
    let mut forbidden = None;
    for directory in path.split(':') {
        let candidate = Path::new(if directory.is_empty() { "." } else { directory }).join(name);
        match usable(&candidate) {
            Ok(()) if !name.is_empty() => return Ok(candidate),
            Err(Errno::ACCESS) => forbidden = Some(candidate),
            Ok(()) | Err(_) => {}
        }
    }
    match forbidden {
        Some(candidate) => Err(Errno::ACCESS).doing(|| format!("exec: {:?}", candidate.display())),
        None => Err(Error::invalid(format!("exec: {name:?}"), "executable file not found in $PATH")),
    }
}

/// The user's home as the image has it. Source: passwd(5), field 6.
fn home(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let wanted = uid.to_string();
    let line = users.lines().find(|line| line.split(':').nth(2) == Some(&wanted));
    let home = line.and_then(|line| line.split(':').nth(5)).filter(|home| !home.is_empty());
    home.unwrap_or("/").to_owned()
}

impl Program {
    /// Becomes the program; returns only on failure.
    pub fn execute(&self) -> Error {
        let answer = nix::unistd::execve(&self.path, &self.arguments, &self.environment);
        let errno = answer.err().unwrap_or(nix::errno::Errno::UnknownErrno);
        Error::Os { doing: format!("exec {:?}", self.path.to_string_lossy()), source: errno.into() }
    }
}

/// The process as somebody whom the container's own files know, see `user`. A user without capabilities of his own keeps none, as execve(2)
/// would have it.
pub fn with_user(process: &Process, wanted: &str, proc: BorrowedFd<'_>) -> Result<Process> {
    let account = user::find(wanted, proc)?;
    let mut changed = process.clone();
    let mut user = process.user().clone();
    user.set_uid(account.uid);
    user.set_gid(account.gid);
    let mut groups = user.additional_gids().clone().unwrap_or_default();
    groups.extend(account.groups);
    // Where groups can be neither dropped nor taken, the namespace has none to be in.
    user.set_additional_gids(Some(groups).filter(|groups| !groups.is_empty() && can_drop_groups(proc)));
    changed.set_user(user);
    if account.uid != 0
        && let Some(sets) = process.capabilities()
    {
        let mut sets = sets.clone();
        sets.set_effective(None).set_permitted(None).set_inheritable(None).set_ambient(None);
        changed.set_capabilities(Some(sets));
    }
    Ok(changed)
}

/// Whether the user namespace lets groups be dropped.
pub fn can_drop_groups(proc: BorrowedFd<'_>) -> bool {
    let file = rustix::fs::openat(proc, "self/setgroups", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty());
    let mut word = [0_u8; 8];
    let length = file.and_then(|file| rustix::io::read(file.as_fd(), &mut word)).unwrap_or(0);
    word.get(..length).is_none_or(|word| !word.starts_with(b"deny"))
}
