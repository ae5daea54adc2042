//! One mount, from the checks before it to the last request.
//!
//! Owns the order of a mount's life: check, open the layers, mount, report, serve, finish. Must not know the wire. Invariants:
//! the layers are open before the mount covers anything; nothing is mounted when this returns an error.

use super::counted::Counted;
use super::driver::Driver;
use super::mount::{self, Device, Mounted};
use super::offload::Offload;
use super::passthrough::Passthrough;
use super::signals;
use super::turns::Turns;
use crate::options::{Access, Durability, Io, Options, Threads};
use crate::union::{SetupError, Union};
use fuser::{Session, SessionACL};
use std::fs::Metadata;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Request threads are twice the processors, for some wait for the disk; and never fewer than this.
const THREADS_MIN: usize = 4;

/// And never more, as each has a buffer of 16 MiB of address space.
const THREADS_MAX: usize = 64;

/// What the driver needs to know of the options.
#[derive(Clone, Copy, Debug)]
pub(super) struct Serving {
    /// How long the kernel may believe an answer.
    pub(super) timeout: Duration,
    /// fsync reaches the disk.
    pub(super) sync: bool,
    /// Extended attributes exist.
    pub(super) xattrs: bool,
    /// POSIX ACLs exist.
    pub(super) acl: bool,
    /// The kernel collects writes.
    pub(super) writeback: bool,
    /// The kernel reaches the data by itself, on filesystems of which so many lie on each other at the most.
    pub(super) passthrough: Option<u32>,
}

/// Why a mount did not come about or broke off; its text is the whole sentence for the user.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The mountpoint is not there, or not a directory.
    #[error("cannot mount on {}: {cause}; {advice}", path.display())]
    Mountpoint {
        /// As given.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
        /// The way out.
        advice: &'static str,
    },
    /// The mount would cover what it is made of.
    #[error("cannot mount on {}: it lies in the {role} {}, which the mount would cover; mount elsewhere", path.display(), layer.display())]
    MountpointInLayer {
        /// The mountpoint.
        path: PathBuf,
        /// `upperdir` or `workdir`.
        role: &'static str,
        /// That directory.
        layer: PathBuf,
    },
    /// No device.
    #[error("cannot open /dev/fuse: {cause}; {advice}")]
    Device {
        /// What the kernel said.
        cause: io::Error,
        /// The way out.
        advice: &'static str,
    },
    /// The device that we were to be given is none.
    #[error(
        "cannot serve /dev/fd/{number}: {cause}; start lamina-fs with an open and mounted /dev/fuse at that descriptor"
    )]
    Given {
        /// Of the descriptor.
        number: i32,
        /// What is wrong with it.
        cause: io::Error,
    },
    /// The kernel does not make a mount that is attached nowhere.
    #[error(
        "the kernel refused a detached FUSE mount, at {step}: {cause}; it needs Linux 5.2, and root or a user and a mount namespace of your own"
    )]
    Detached {
        /// The system call.
        step: &'static str,
        /// What the kernel said.
        cause: io::Error,
    },
    /// Not privileged, and no helper that is.
    #[error(
        "mounting needs root, a user namespace of your own (unshare -Urm), or the program fusermount3, which is not in PATH; install the package fuse3"
    )]
    HelperMissing,
    /// The helper said no.
    #[error("fusermount3 refused to mount on {}: {message}", path.display())]
    HelperRefused {
        /// The mountpoint.
        path: PathBuf,
        /// Its own words.
        message: String,
    },
    /// The kernel said no.
    #[error("the kernel refused to mount on {}: {cause}", path.display())]
    Refused {
        /// The mountpoint.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The layers are not fit.
    #[error(transparent)]
    Layers(#[from] SetupError),
    /// The kernel does not take backing files.
    #[error("io=passthrough does not work here: {error}; {advice}")]
    Passthrough {
        /// What the kernel said.
        error: crate::error::Error,
        /// The way out.
        advice: &'static str,
    },
    /// Anything the process needs for itself.
    #[error("{what}: {cause}")]
    Process {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The server ended before the mount was live; the text is its own sentence.
    #[error("{0}")]
    Server(String),
}

impl SessionError {
    /// For `map_err`.
    pub(super) fn process<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |cause| SessionError::Process { what, cause: cause.into() }
    }
}

/// Mounts, calls `live`, and serves until somebody unmounts. With a mountpoint `/dev/fd/N` it serves the device of that number,
/// which somebody has mounted, until the last mount of it is gone.
///
/// # Errors
/// A sentence; then nothing is mounted.
pub fn serve(options: &Options, live: impl FnOnce() -> Result<(), SessionError>) -> Result<(), SessionError> {
    // The union applies each caller's umask; ours would be applied on top.
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    let descriptors_max = mount::raise_descriptor_limit()?;
    // Before any thread starts, so that all inherit it and the one that waits gets them.
    let signals = signals::block()?;
    let (device, mountpoint) = match given_device(&options.mountpoint) {
        Some(number) => (Device::given(number)?, options.mountpoint.clone()),
        None => {
            let mountpoint = checked_mountpoint(options)?;
            (Device::open(options.mount.auto_unmount)?, mountpoint)
        }
    };
    let union = Arc::new(Union::new(options.union(descriptors_max))?);
    let offload = Offload::default();
    let (descriptor, mounted) = device.mount(&options.mount, &mountpoint)?;
    let mounted = Arc::new(mounted);
    let started = start(options, &union, &offload, descriptor).and_then(|(session, turns)| {
        signals::watch(signals, Arc::clone(&mounted), Arc::clone(&union))?;
        watch(turns)?;
        mounted.read_ahead();
        live().map(|()| session)
    });
    let session = match started {
        Ok(session) => session,
        Err(error) => {
            report_unmount(&mounted);
            return Err(error);
        }
    };
    let served = session.run();
    if served.is_err() {
        // Nobody answers any more: whoever comes must not find a dead mount.
        report_unmount(&mounted);
    }
    offload.wait();
    union.finish();
    served.map_err(SessionError::process("the FUSE connection broke"))
}

/// Agrees with the kernel on the connection.
fn start(
    options: &Options,
    union: &Arc<Union>,
    offload: &Offload,
    descriptor: OwnedFd,
) -> Result<(Session<Counted>, Arc<Turns>), SessionError> {
    let passthrough = (options.io == Io::Passthrough).then(Arc::<Passthrough>::default);
    let again =
        || descriptor.try_clone().map_err(SessionError::process("cannot duplicate the descriptor of the device"));
    let (device, turns) = (again()?, Turns::new(again()?, threads(options), processors()));
    let serving = serving(options, union)?;
    let driver = Driver::new(Arc::clone(union), serving, offload.clone(), passthrough.clone());
    let driver = Counted::new(driver, Arc::clone(&turns), Arc::clone(union));
    let session = Session::from_fd(driver, descriptor, acl(options), config(options))
        .map_err(SessionError::process("the kernel did not start the FUSE connection"))?;
    if let Some(passthrough) = passthrough {
        passthrough.start(union, device.as_fd(), session.notifier())?;
    }
    Ok((session, turns))
}

/// Filesystems that may lie on each other below a passed file (`max_stack_depth`): with one, this mount can still be a layer
/// of the kernel's overlayfs.
fn stack_depth(union: &Union) -> Result<u32, SessionError> {
    match union.is_stacked() {
        Ok(stacked) => Ok(if stacked { 2 } else { 1 }),
        Err(error) => Err(SessionError::Passthrough { error, advice: "the layers must be on filesystems that answer" }),
    }
}

fn report_unmount(mounted: &Mounted) {
    if let Err(error) = mounted.unmount() {
        log::error!("{error}");
    }
}

fn serving(options: &Options, union: &Union) -> Result<Serving, SessionError> {
    Ok(Serving {
        timeout: options.timeout,
        sync: options.durability == Durability::Synced,
        xattrs: options.xattrs,
        acl: options.acl && options.xattrs,
        writeback: options.writeback,
        passthrough: (options.io == Io::Passthrough).then(|| stack_depth(union)).transpose()?,
    })
}

/// Whose requests `fuser` lets through. The kernel itself keeps others out unless `allow_other` is given; to filter once more
/// by user id would shut out the other ids of a user namespace.
fn acl(options: &Options) -> SessionACL {
    match options.mount.access {
        Access::Owner | Access::Everyone => SessionACL::All,
        Access::OwnerAndRoot => SessionACL::RootAndOwner,
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get())
}

fn threads(options: &Options) -> usize {
    match options.threads {
        Threads::One => 1,
        Threads::Many => (2 * processors()).clamp(THREADS_MIN, THREADS_MAX),
    }
}

/// Starts the thread that sees to it that nothing waits for a stuck operation.
fn watch(turns: Arc<Turns>) -> Result<(), SessionError> {
    std::thread::Builder::new()
        .name("turns".to_owned())
        .spawn(move || turns.watch())
        .map(drop)
        .map_err(SessionError::process("cannot start a thread"))
}

fn config(options: &Options) -> fuser::Config {
    let threads = threads(options);
    let mut config = fuser::Config::default();
    config.n_threads = Some(threads);
    // Each thread reads from a queue of its own.
    config.clone_fd = threads > 1;
    config
}

/// The number in `/dev/fd/N`: libfuse's way to name a device that is open and mounted already.
fn given_device(mountpoint: &Path) -> Option<i32> {
    mountpoint.to_str()?.strip_prefix("/dev/fd/")?.parse().ok()
}

/// The mountpoint as an absolute path, for the server changes its directory.
fn checked_mountpoint(options: &Options) -> Result<PathBuf, SessionError> {
    let given = &options.mountpoint;
    let refused = |cause: io::Error| {
        let advice = match cause.raw_os_error() {
            Some(libc::ENOTCONN) => {
                "a mount is there whose server died: unmount it first, with fusermount3 -u or umount"
            }
            _ => "the mountpoint must be an existing directory",
        };
        SessionError::Mountpoint { path: given.clone(), cause, advice }
    };
    let path = given.canonicalize().map_err(refused)?;
    if !path.metadata().map_err(refused)?.is_dir() {
        return Err(refused(io::Error::from_raw_os_error(libc::ENOTDIR)));
    }
    let Some(upper) = &options.upper else { return Ok(path) };
    for (role, layer) in [("upperdir", &upper.upper), ("workdir", &upper.work)] {
        // Whether it exists is for the union to say.
        if layer.metadata().is_ok_and(|layer| lies_in(&path, &layer)) {
            return Err(SessionError::MountpointInLayer { path, role, layer: layer.clone() });
        }
    }
    Ok(path)
}

/// By identity, not by name: a layer may be given through a symlink or a bind mount.
fn lies_in(path: &Path, layer: &Metadata) -> bool {
    let is_layer = |found: Metadata| (found.dev(), found.ino()) == (layer.dev(), layer.ino());
    path.ancestors().any(|ancestor| ancestor.metadata().is_ok_and(is_layer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountpoint_below_a_layer_is_found_through_a_symlink() {
        let root = tempfile::tempdir().unwrap();
        let (upper, alias) = (root.path().join("upper"), root.path().join("alias"));
        std::fs::create_dir_all(upper.join("a/b")).unwrap();
        std::os::unix::fs::symlink(&upper, &alias).unwrap();
        let layer = alias.metadata().unwrap();
        assert!(lies_in(&upper.join("a/b"), &layer));
        assert!(lies_in(&upper, &layer));
        assert!(!lies_in(root.path(), &layer));
    }
}
