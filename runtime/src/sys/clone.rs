//! Making a process that starts in new namespaces.

use super::check;
use rustix::process::Pid;
use std::io;

/// Forks; the child begins in the new namespaces that `flags` (`CLONE_NEW*`) name. `None` is the child.
///
/// Source: clone3(2). No pthread_atfork handler runs; there are none, and there is one thread.
pub fn fork(flags: u64) -> io::Result<Option<Pid>> {
    // SAFETY: clone_args is plain integers, for which zero is "not asked for".
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags;
    arguments.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: without CLONE_VM the child has its own copy of everything, its stack included; the caller has one thread.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) })?;
    Ok(Pid::from_raw(pid as i32))
}
