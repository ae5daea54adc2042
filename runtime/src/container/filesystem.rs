//! The root filesystem of a container: a FUSE mount that is attached nowhere, and the server that answers it.
//!
//! Owns the child that makes both. Must not know what runs on it. Invariants: the server is in the container's user namespace and in none of
//! its others, so that it ends when the container's mount namespace does and not before; whoever starts one has one thread.
//!
//! ```text
//! child: unshare user and mount namespace -> (maps) -> open /dev/fuse, fsopen, fsmount -> send both descriptors -> exec lamina-fs /dev/fd/N
//! ```

use super::error::{Error, Result};
use super::ids::Ids;
use crate::oci::sync::{Line, Report};
use crate::oci::{id_maps::IdMaps, init, log};
use crate::sys::{clone, descriptors};
use lamina_fs::fuse::{background, detached, read_ahead};
use lamina_fs::options::{Environment, Invocation, Options, ProgramName};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Gid, Uid};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, waitpid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The server's program.
const PROGRAM: &str = "lamina-fs";

/// What a root filesystem is made of.
#[derive(Debug, Clone)]
pub struct Layers {
    /// Read-only layers, topmost first; none only for an image without layers.
    pub lowers: Vec<PathBuf>,
    /// The container's own layer.
    pub upper: PathBuf,
    /// Its work directory.
    pub work: PathBuf,
    /// The index of the lower layers, if there is one.
    pub index: Option<PathBuf>,
    /// Whether what is written must be on the disk when the container has ended: not if it goes then.
    pub durable: bool,
    /// The `lamina-fs` to serve it.
    pub program: PathBuf,
}

/// A mount and its server.
#[derive(Debug)]
pub struct Filesystem {
    /// The server: our child.
    pub server: Pid,
    /// The server by descriptor.
    pub process: OwnedFd,
    /// The device once more: while it is open the kernel keeps requests, also those of a server that died.
    pub device: OwnedFd,
    /// The mount, until the container has it.
    pub mount: OwnedFd,
}

/// The program `lamina-fs`: $LAMINA_FS, beside our own, or in PATH.
///
/// # Errors
/// The store's, if it is nowhere.
pub fn program() -> Result<PathBuf> {
    match std::env::var_os("LAMINA_FS").filter(|given| !given.is_empty()) {
        Some(given) => Ok(given.into()),
        None => Ok(lamina_snapshotter::host::find_lamina_fs()?),
    }
}

impl Layers {
    /// The option list of `lamina-fs`.
    fn options(&self, ids: &Ids, index: Option<&Path>) -> OsString {
        let mut words = OsString::from("fsname=lamina");
        let mut path = |word: &str, path: &Path| {
            words.push(word);
            words.push(escape(path));
        };
        for (at, lower) in self.lowers.iter().enumerate() {
            path(if at == 0 { ",lowerdir=" } else { ":" }, lower);
        }
        path(",upperdir=", &self.upper);
        path(",workdir=", &self.work);
        if let Some(index) = index {
            path(",index=", index);
        }
        match ids {
            Ids::Host => {}
            Ids::Range(_) => words.push(",xattr_permissions=2"),
            // Owners that do not exist inside would show as nobody, whose files the kernel lets even root not write.
            Ids::One(_) => words.push(",xattr_permissions=2,squash_to_root"),
        }
        if !self.durable {
            words.push(",fsync=0");
        }
        words
    }

    /// Mounts, and starts the server; it answers when this returns.
    ///
    /// # Errors
    /// [`Error::Filesystem`] with the sentence of whoever failed; then nothing is left.
    pub fn mount(&self, ids: &Ids) -> Result<Filesystem> {
        match self.start(ids, self.index.as_deref()) {
            Err(error) if self.index.is_some() => {
                log::debug(&format!("mounting without the index: {error}"));
                self.start(ids, None)
            }
            started => started,
        }
    }

    fn start(&self, ids: &Ids, index: Option<&Path>) -> Result<Filesystem> {
        let options = self.options(ids, index);
        let (line, inside) = Line::pair()?;
        let failed = |what: &'static str| move |errno: rustix::io::Errno| sentence(format!("{what}: {errno}"));
        let (receiving, sending) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(failed("make a socket pair"))?;
        let (report, reporting) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed("make a pipe"))?;
        let forked = clone::fork(0).map_err(|error| sentence(format!("fork: {error}")))?;
        let Some(server) = forked else {
            drop((line, receiving, report));
            let Err(error) = become_server(&self.program, options, ids, &inside, &sending, reporting);
            init::fail(&inside, &error)
        };
        drop((inside, sending, reporting));
        let started = attend(server, &line, ids, &receiving, report);
        if started.is_err() {
            end(server);
        }
        started
    }
}

fn sentence(sentence: String) -> Error {
    Error::Filesystem { sentence }
}

/// The parent's half.
fn attend(server: Pid, line: &Line, ids: &Ids, receiving: &OwnedFd, report: OwnedFd) -> Result<Filesystem> {
    let silent = || sentence("the process that was to mount the root filesystem ended before it did".to_owned());
    loop {
        match (line.wait()?, ids) {
            (Report::Map, Ids::One(maps) | Ids::Range(maps)) => {
                maps.write(server.as_raw_nonzero().get())?;
                line.go(b"")?;
            }
            (Report::Ready, _) => break,
            (Report::Failed(reason), _) => return Err(sentence(reason)),
            _ => return Err(silent()),
        }
    }
    let [device, mount] = receive(receiving).map_err(|errno| sentence(format!("receive the mount: {errno}")))?;
    let process = pidfd_open(server, PidfdFlags::empty());
    let process = process.map_err(|errno| sentence(format!("open process {server}: {errno}")))?;
    match background::hear(File::from(report)) {
        Ok(None) => {
            if let Err(error) = read_ahead::raise(&mount) {
                log::debug(&format!("the kernel's own measure of reading ahead stays: {error}"));
            }
            Ok(Filesystem { server, process, device, mount })
        }
        // The program could not be executed, and said so here.
        Ok(Some(said)) if said.is_empty() => match line.wait()? {
            Report::Failed(reason) => Err(sentence(reason)),
            _ => Err(sentence("the filesystem server ended before the mount was live".to_owned())),
        },
        Ok(Some(said)) => Err(sentence(said)),
        Err(error) => Err(sentence(format!("hear from the filesystem server: {error}"))),
    }
}

/// The child's half; it becomes the server.
fn become_server(
    program: &Path,
    options: OsString,
    ids: &Ids,
    line: &Line,
    sending: &OwnedFd,
    reporting: OwnedFd,
) -> crate::error::Result<Infallible> {
    use crate::error::{Doing as _, Error};
    if *ids != Ids::Host {
        // Mounting asks for a mount namespace that belongs to the user namespace.
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).doing(|| {
            "make a user namespace: this host may forbid it to users (kernel.unprivileged_userns_clone, user.max_user_namespaces)".into()
        })?;
        line.report(&Report::Map)?;
        line.await_go()?;
        set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).doing(|| "become root of the user namespace".into())?;
        set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).doing(|| "become root of the user namespace".into())?;
    }
    let environment = Environment { name: ProgramName::LaminaFs, root: true, dot_whiteouts: false };
    let words = [OsString::from("-o"), options.clone(), OsString::from("/dev/fd/3")];
    let refused = |problem: String| Error::invalid("root filesystem", problem);
    let settings = match Options::parse(words, &environment) {
        Ok(Invocation::Mount(parsed)) => parsed.mount,
        Ok(_) => return Err(refused("its options ask for no mount".into())),
        Err(error) => return Err(refused(error.to_string())),
    };
    let made = detached::mount(&settings).map_err(|error| Error::Inside(error.to_string()))?;
    send(sending, &made).doing(|| "send the mount".into())?;
    drop(made.mount);
    descriptors::close_on_exec_from(3).doing(|| "close descriptors".into())?;
    // Its session it begins itself; the working directory is somebody's.
    rustix::process::chdir("/").doing(|| "leave the working directory".into())?;
    crate::sys::exec::restore_signals().doing(|| "restore signals".into())?;
    // Without close-on-exec: the server finds it by its number.
    let device = rustix::io::dup(&made.device).doing(|| "pass on the device".into())?;
    line.report(&Report::Ready)?;
    let mut command = Command::new(program);
    command.arg0(PROGRAM).arg("-o").arg(options).arg(format!("/dev/fd/{}", device.as_raw_fd()));
    let error = background::become_server(&mut command, reporting);
    Err(error).doing(|| format!("start {}", program.display()))
}

/// Ends a server that nobody will use.
pub(super) fn end(server: Pid) {
    if let Err(errno) = kill_process(server, Signal::KILL) {
        log::debug(&format!("kill the filesystem server: {errno}"));
    }
    reap(server);
}

/// Waits for a child that has ended, or is about to.
pub(super) fn reap(child: Pid) {
    if let Err(errno) = waitpid(Some(child), WaitOptions::empty()) {
        log::debug(&format!("wait for a process of a container: {errno}"));
    }
}

fn send(socket: &OwnedFd, made: &detached::Detached) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let both = [made.device.as_fd(), made.mount.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&both));
    sendmsg(socket, &[IoSlice::new(b"m")], &mut control, SendFlags::NOSIGNAL).map(drop)
}

fn receive(socket: &OwnedFd) -> rustix::io::Result<[OwnedFd; 2]> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut word = [0_u8; 1];
    recvmsg(socket, &mut [IoSliceMut::new(&mut word)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut found = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            found.extend(descriptors);
        }
    }
    found.try_into().map_err(|_| rustix::io::Errno::NODATA)
}

/// What the option list would read as punctuation gets a backslash.
pub(super) fn escape(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let mut escaped = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if b"\\:,\"".contains(byte) {
            escaped.push(b'\\');
        }
        escaped.push(*byte);
    }
    OsString::from_vec(escaped)
}

/// Runs something as root of a user namespace with these ids, in a process of its own: what others own inside is nobody's from outside.
///
/// # Errors
/// [`Error::Filesystem`] with what it said.
pub fn as_inner_root(maps: &IdMaps, act: impl FnOnce() -> crate::error::Result<()>) -> Result<()> {
    let (line, inside) = Line::pair()?;
    let Some(child) = clone::fork(0).map_err(|error| sentence(format!("fork: {error}")))? else {
        drop(line);
        match enter_and(&inside, act) {
            Ok(()) => std::process::exit(0),
            Err(error) => init::fail(&inside, &error),
        }
    };
    drop(inside);
    let outcome = loop {
        match line.wait() {
            Ok(Report::Map) => {
                if let Err(error) = maps.write(child.as_raw_nonzero().get()).and_then(|()| line.go(b"")) {
                    break Err(error.into());
                }
            }
            Ok(Report::Failed(reason)) => break Err(sentence(reason)),
            Ok(_) => break Ok(()),
            Err(error) => break Err(error.into()),
        }
    };
    drop(line);
    waitpid(Some(child), WaitOptions::empty()).map_err(|errno| sentence(format!("wait: {errno}")))?;
    outcome
}

fn enter_and(line: &Line, act: impl FnOnce() -> crate::error::Result<()>) -> crate::error::Result<()> {
    use crate::error::Doing as _;
    unshare(CloneFlags::CLONE_NEWUSER).doing(|| "make a user namespace".into())?;
    line.report(&Report::Map)?;
    line.await_go()?;
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).doing(|| "become root of the user namespace".into())?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).doing(|| "become root of the user namespace".into())?;
    act()
}
