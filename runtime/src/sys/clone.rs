//! Making a process that starts in new namespaces.

use super::check;
use rustix::process::Pid;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// `CLONE_INTO_CGROUP` of linux/sched.h, which libc's type does not hold.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks; the child begins in the new namespaces that `flags` (`CLONE_NEW*`) name. `None` is the child.
///
/// Source: clone3(2). No pthread_atfork handler runs; there are none, and there is one thread.
pub fn fork(flags: u64) -> io::Result<Option<Pid>> {
    fork_into(flags, None)
}

/// The same; the child begins in a cgroup of version 2, which is given by its directory. Source: clone3(2), `CLONE_INTO_CGROUP`.
pub fn fork_into(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Option<Pid>> {
    // SAFETY: clone_args is plain integers, for which zero is "not asked for".
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags;
    if let Some(cgroup) = cgroup {
        arguments.flags |= INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    arguments.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: without CLONE_VM the child has its own copy of everything, its stack included; the caller has one thread.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) })?;
    Ok(Pid::from_raw(pid as i32))
}
