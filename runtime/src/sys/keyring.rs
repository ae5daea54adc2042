//! Session keyrings.

use super::check;
use std::ffi::CStr;
use std::io;

/// `KEYCTL_JOIN_SESSION_KEYRING` of linux/keyctl.h.
const JOIN_SESSION_KEYRING: libc::c_int = 1;

/// Gives the process a session keyring of that name, made if there is none. Source: keyctl(2).
pub fn join_session(name: &CStr) -> io::Result<()> {
    // SAFETY: the kernel reads the name up to its null byte.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) })?;
    Ok(())
}
