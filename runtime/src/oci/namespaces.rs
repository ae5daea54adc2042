//! Namespaces: which ones a container makes, which ones it joins, and in which order.
//!
//! Invariant: a process that joins somebody else's namespaces is not dumpable before it does, so that nobody in there can look
//! into the runtime's memory or descriptors.

use crate::error::{Doing, Error, Result};
use nix::sched::{CloneFlags, setns};
use oci_spec::runtime::{Linux, LinuxNamespaceType as Kind};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::DumpableBehavior;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// A namespace of somebody else.
#[derive(Debug)]
pub struct Joined {
    kind: Kind,
    path: PathBuf,
    fd: OwnedFd,
}

/// What a container is to live in.
#[derive(Debug)]
pub struct Plan {
    made: Vec<Kind>,
    joined: Vec<Joined>,
    offsets: String,
}

/// The bit of clone(2).
fn bit(kind: Kind) -> CloneFlags {
    match kind {
        Kind::Mount => CloneFlags::CLONE_NEWNS,
        Kind::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        Kind::Uts => CloneFlags::CLONE_NEWUTS,
        Kind::Ipc => CloneFlags::CLONE_NEWIPC,
        Kind::User => CloneFlags::CLONE_NEWUSER,
        Kind::Pid => CloneFlags::CLONE_NEWPID,
        Kind::Network => CloneFlags::CLONE_NEWNET,
        Kind::Time => CloneFlags::from_bits_retain(libc::CLONE_NEWTIME),
    }
}

/// The file below /proc/PID/ns.
fn file(kind: Kind) -> &'static str {
    match kind {
        Kind::Mount => "mnt",
        Kind::Cgroup => "cgroup",
        Kind::Uts => "uts",
        Kind::Ipc => "ipc",
        Kind::User => "user",
        Kind::Pid => "pid",
        Kind::Network => "net",
        Kind::Time => "time",
    }
}

const ALL: [Kind; 8] =
    [Kind::User, Kind::Mount, Kind::Pid, Kind::Network, Kind::Uts, Kind::Ipc, Kind::Cgroup, Kind::Time];

impl Plan {
    /// Opens what is to be joined, and checks that it is what config.json says it is.
    pub fn new(linux: &Linux) -> Result<Self> {
        let (mut made, mut joined) = (Vec::new(), Vec::new());
        for namespace in linux.namespaces().iter().flatten() {
            let kind = namespace.typ();
            match namespace.path() {
                None => made.push(kind),
                Some(path) => joined.push(open(kind, path.clone())?),
            }
        }
        let mut offsets = String::new();
        for (clock, offset) in linux.time_offsets().iter().flatten() {
            let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
            offsets.push_str(&format!("{clock} {seconds} {nanoseconds}\n"));
        }
        Ok(Plan { made, joined, offsets })
    }

    /// Whether the container has a namespace of that kind that is not the runtime's.
    pub fn has(&self, kind: Kind) -> bool {
        self.made.contains(&kind) || self.joined.iter().any(|other| other.kind == kind)
    }

    /// Whether one of that kind is made.
    pub fn makes(&self, kind: Kind) -> bool {
        self.made.contains(&kind)
    }

    /// Whether a process in between is needed: what it joins, its child is born in. A clock that is shifted takes effect for children too.
    pub fn needs_step(&self) -> bool {
        !self.joined.is_empty() || self.makes(Kind::Time)
    }

    /// What init is born into. The cgroup's comes later, when init is in its cgroup; the clock's by the process in between.
    pub fn birth(&self) -> CloneFlags {
        let later = |kind: &&Kind| !matches!(kind, Kind::Cgroup | Kind::Time);
        self.made.iter().filter(later).map(|kind| bit(*kind)).collect()
    }

    /// In the process in between: joins all, the user namespace last of those that its present rights open. Answers what is left
    /// for afterwards, when the user namespace has given other rights.
    pub fn join(&self) -> Result<Vec<&Joined>> {
        if !self.joined.is_empty() {
            hide()?;
        }
        let mut left = Vec::new();
        for other in self.joined.iter().filter(|other| other.kind != Kind::User) {
            match setns(&other.fd, bit(other.kind)) {
                Err(nix::Error::EPERM) if self.has(Kind::User) => left.push(other),
                outcome => outcome.doing(|| format!("join {} namespace {}", other.kind, other.path.display()))?,
            }
        }
        if let Some(user) = self.joined.iter().find(|other| other.kind == Kind::User) {
            user.enter()?;
        }
        Ok(left)
    }

    /// In the process in between: makes the clock namespace of its children.
    pub fn shift_clocks(&self) -> Result<()> {
        if !self.makes(Kind::Time) {
            return Ok(());
        }
        nix::sched::unshare(bit(Kind::Time)).doing(|| "make a time namespace".into())?;
        match self.offsets.as_str() {
            "" => Ok(()),
            offsets => std::fs::write("/proc/self/timens_offsets", offsets)
                .doing(|| format!("set linux.timeOffsets to {:?}", offsets.trim())),
        }
    }
}

impl Joined {
    /// Joins it.
    pub fn enter(&self) -> Result<()> {
        setns(&self.fd, bit(self.kind)).doing(|| format!("join {} namespace {}", self.kind, self.path.display()))
    }
}

fn open(kind: Kind, path: PathBuf) -> Result<Joined> {
    let place = || format!("linux.namespaces: {} namespace {}", kind, path.display());
    let fd = openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).doing(place)?;
    let found = kind_of(&fd).doing(place)?;
    match found == bit(kind) {
        true => Ok(Joined { kind, path, fd }),
        false => Err(Error::invalid(place(), "the file is no namespace of that type")),
    }
}

/// Source: ioctl_nsfs(2), `NS_GET_NSTYPE`.
fn kind_of(fd: &OwnedFd) -> std::io::Result<CloneFlags> {
    Ok(CloneFlags::from_bits_retain(crate::sys::descriptors::namespace_type(fd.as_fd())?))
}

/// Keeps others from looking into this process.
pub fn hide() -> Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).doing(|| "become undumpable".into())
}

/// The namespaces of a process that are not the caller's own.
pub fn foreign(pid: i32) -> Result<CloneFlags> {
    let mut flags = CloneFlags::empty();
    for kind in ALL {
        let own = rustix::fs::stat(format!("/proc/self/ns/{}", file(kind)));
        let other = rustix::fs::stat(format!("/proc/{pid}/ns/{}", file(kind)));
        match (own, other) {
            (Ok(own), Ok(other)) if own.st_ino != other.st_ino => flags |= bit(kind),
            (Ok(_), Ok(_)) | (Err(rustix::io::Errno::NOENT), _) => {}
            (_, Err(errno)) | (Err(errno), _) => {
                return Err(errno).doing(|| format!("look at the {kind} namespace of process {pid}"));
            }
        }
    }
    Ok(flags)
}

/// Joins the namespaces of a process, all in one call. Source: setns(2) with a pidfd.
pub fn enter(init: &OwnedFd, flags: CloneFlags) -> Result<()> {
    hide()?;
    setns(init, flags).doing(|| "join the container's namespaces".into())
}
