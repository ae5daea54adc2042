//! Becoming another program by descriptor.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Executes the file behind `fd` with the caller's environment; returns only on failure. Source: execveat(2), `AT_EMPTY_PATH`.
pub fn execute(fd: BorrowedFd<'_>, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |words: &[CString]| -> Vec<*const libc::c_char> {
        words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both arrays end with a null pointer, and the strings outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// Undoes what a Rust program and its callers leave behind: signals ignored and blocked. `SIGPIPE` is ignored by every Rust program, and `SIGINT` and
/// `SIGQUIT` by whatever a script starts in the background; a shell in a container would pass that on, and nothing in it could be interrupted.
///
/// Sources: signal(2), sigprocmask(2); sh(1) of POSIX, "Asynchronous Lists".
pub fn restore_signals() -> io::Result<()> {
    // Those in between are libc's own.
    for number in (1..32).chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
        if matches!(number, libc::SIGKILL | libc::SIGSTOP) {
            continue;
        }
        // SAFETY: the default action is no function of ours.
        if unsafe { libc::signal(number, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    Ok(())
}
