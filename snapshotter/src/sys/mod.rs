//! The one thing that we get as a bare number: the socket that a service manager opened.
//!
//! Owns the only `unsafe` of the crate. Invariant: the number becomes a descriptor once.

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// The first descriptor that a manager passes; see sd_listen_fds(3), `SD_LISTEN_FDS_START`.
const LISTEN_FDS_START: RawFd = 3;

/// The socket that a service manager passed to this process, if it did. Only the first call answers it.
pub fn listen_descriptor() -> Option<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    let passed = number("LISTEN_PID") == Some(std::process::id()) && number("LISTEN_FDS") >= Some(1);
    let open = Path::new("/proc/self/fd").join(LISTEN_FDS_START.to_string()).exists();
    if !passed || !open || TAKEN.swap(true, Ordering::SeqCst) {
        return None;
    }
    // SAFETY: the manager opened it for this very process, it is open, and TAKEN lets nobody own it twice.
    let descriptor = unsafe { OwnedFd::from_raw_fd(LISTEN_FDS_START) };
    // The servers that we start must not keep the socket.
    if let Err(errno) = fcntl(&descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
        tracing::warn!(%errno, "the passed socket stays open in the servers of the mounts");
    }
    Some(descriptor)
}
