//! fusermount3, the set-user-id helper that mounts for plain users.
//!
//! Owns its command line and the way it hands the device over. Must not know what is mounted. Invariant: whatever it says
//! on stderr reaches the user.

use super::mount::flag_words;
use super::session::SessionError;
use crate::options::{Access, MountSettings};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::ffi::OsStr;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const NAME: &str = "fusermount3";

/// Where it is, also when PATH is poor, as it is for services.
pub(super) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/bin", "/usr/local/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|directory| directory.join(NAME)).find(|program| program.is_file())
}

/// What it says of its version.
pub fn version() -> Option<String> {
    let output = Command::new(find()?).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

/// Has it mount. With `auto_unmount` it stays, and unmounts when the returned socket is closed.
pub(super) fn mount(
    helper: &Path,
    settings: &MountSettings,
    path: &Path,
) -> Result<(OwnedFd, Option<UnixStream>), SessionError> {
    let what = "cannot start fusermount3";
    let (ours, theirs) = UnixStream::pair().map_err(SessionError::process(what))?;
    let mut child = Command::new(helper)
        .args(["-o", &option_list(settings), "--"])
        .arg(path)
        // Its standard input is the socket: no descriptor has to be made inheritable.
        .env("_FUSE_COMMFD", "0")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(SessionError::process(what))?;
    match receive(&ours) {
        Ok(device) if settings.auto_unmount => Ok((device, Some(ours))),
        Ok(device) => {
            child.wait().map_err(SessionError::process("cannot wait for fusermount3"))?;
            Ok((device, None))
        }
        Err(cause) => {
            drop(ours);
            let output = child.wait_with_output().map_err(SessionError::process(what))?;
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let message = if said.is_empty() { cause.to_string() } else { said };
            Err(SessionError::HelperRefused { path: path.to_owned(), message })
        }
    }
}

/// Has it unmount, lazily.
pub(super) fn unmount(path: &Path) -> Result<(), String> {
    let failed = |cause: &dyn std::fmt::Display| format!("cannot unmount {}: {cause}", path.display());
    let helper = find().ok_or_else(|| failed(&"fusermount3 is not in PATH"))?;
    let arguments = ["-u", "-z", "--"].map(OsStr::new);
    let output =
        Command::new(helper).args(arguments).arg(path).stdin(Stdio::null()).output().map_err(|cause| failed(&cause))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(&String::from_utf8_lossy(&output.stderr).trim())),
    }
}

fn option_list(settings: &MountSettings) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace(',', "\\,");
    let mut words: Vec<String> = flag_words(settings.flags).map(str::to_owned).collect();
    words.push("default_permissions".to_owned());
    if settings.access != Access::Owner {
        words.push("allow_other".to_owned());
    }
    if settings.auto_unmount {
        words.push("auto_unmount".to_owned());
    }
    words.push(format!("fsname={}", escape(settings.source())));
    words.push(format!("subtype={}", escape(&settings.subtype)));
    words.join(",")
}

/// Takes the descriptor of the device out of the socket. See unix(7), SCM_RIGHTS.
fn receive(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let buffers = &mut [IoSliceMut::new(&mut byte)];
    rustix::io::retry_on_intr(|| recvmsg(socket, buffers, &mut control, RecvFlags::CMSG_CLOEXEC))?;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    descriptors.flatten().next().ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "it sent no device"))
}
