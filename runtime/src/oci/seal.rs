//! Keeping the container's hands off the runtime's own program file.
//!
//! A process that enters a container can be found there as /proc/PID/exe; opened for writing, the host's program would be the
//! container's (CVE-2019-5736). So the runtime executes itself anew from a copy that nobody can write: a detached, read-only
//! mount of the file, which costs four system calls, or, without the right to mount, a sealed copy in memory.
//!
//! Invariant: only a sealed program goes on to make or enter a container.

use crate::error::{Doing, Error, Result};
use crate::sys::exec;
use crate::sys::mount::{Attributes, set_attributes};
use libc::{F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, MOUNT_ATTR_RDONLY};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use super::rootfs::clone_tree;

const SELF: &str = "/proc/self/exe";

/// Goes on in a sealed program: returns if this one is, else becomes one.
pub fn ensure() -> Result<()> {
    ensure_with(&[])
}

/// The same with further variables for the sealed program, which does not know where it lay.
pub fn ensure_with(variables: &[(&str, &OsStr)]) -> Result<()> {
    let own = File::open(SELF).doing(|| format!("open {SELF}"))?;
    if is_sealed(&own)? {
        return Ok(());
    }
    let sealed = match read_only_mount() {
        Ok(mount) => mount,
        // Rootless, or a kernel without mount_setattr(2).
        Err(Error::Os { source, .. })
            if matches!(source.raw_os_error(), Some(libc::EPERM | libc::ENOSYS | libc::EINVAL)) =>
        {
            copy(own).doing(|| "copy this program into memory".into())?
        }
        Err(error) => return Err(error),
    };
    let strings = |words: &mut dyn Iterator<Item = OsString>| -> Vec<CString> {
        // The kernel gave them to us as C strings: none has a null byte inside.
        words.filter_map(|word| CString::new(word.into_vec()).ok()).collect()
    };
    let arguments = strings(&mut std::env::args_os());
    let joined = |mut name: OsString, value: &OsStr| {
        name.push("=");
        name.push(value);
        name
    };
    let own = std::env::vars_os().filter(|(name, _)| variables.iter().all(|(more, _)| name != more));
    let more = variables.iter().map(|(name, value)| joined((*name).into(), value));
    let environment = strings(&mut own.map(|(name, value)| joined(name, &value)).chain(more));
    Err(exec::execute(sealed.as_fd(), &arguments, &environment))
        .doing(|| "execute the sealed copy of this program".into())
}

/// Whether nobody can write the file: through a mount that is read-only, or because it is sealed.
fn is_sealed(own: &File) -> Result<bool> {
    let seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    if fcntl(own, FcntlArg::F_GET_SEALS).is_ok_and(|found| found & seals == seals) {
        return Ok(true);
    }
    let found = fstatvfs(own).doing(|| format!("look at the filesystem of {SELF}"))?;
    Ok(found.flags().contains(FsFlags::ST_RDONLY))
}

fn read_only_mount() -> Result<OwnedFd> {
    let tree = clone_tree(SELF.as_ref(), false)?;
    let read_only = Attributes { set: MOUNT_ATTR_RDONLY, ..Attributes::default() };
    set_attributes(tree.as_fd(), read_only, false, None).doing(|| "make this program read-only".into())?;
    Ok(tree)
}

fn copy(mut own: File) -> io::Result<OwnedFd> {
    let memory = memfd_create(c"lamina-oci", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut copy = File::from(memory);
    io::copy(&mut own, &mut copy)?;
    copy.flush()?;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(SealFlag::all()))?;
    // Opened for reading only, as a file that is open for writing cannot be executed.
    Ok(File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&copy)))?.into())
}
