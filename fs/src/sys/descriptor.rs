//! A descriptor that this process was started with, of which nothing but the number is known.
//!
//! Invariant: a number becomes a descriptor once.
#![expect(unsafe_code, reason = "a bare number has no owner yet")]

use super::os;
use crate::error::{Error, Result};
use rustix::io::FdFlags;
use std::collections::BTreeSet;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::Mutex;

/// Standard streams stay what they are.
const FIRST: RawFd = 3;

static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

/// Takes over descriptor `number`, and closes it for programs that this one starts. See fcntl(2), `F_SETFD`.
pub fn inherited(number: RawFd) -> Result<OwnedFd> {
    let bad = || Error::Os { call: "fcntl", errno: libc::EBADF };
    let mut taken = TAKEN.lock().map_err(|_| bad())?;
    if number < FIRST || !taken.insert(number) {
        return Err(bad());
    }
    // SAFETY: the number is only asked about; the kernel answers EBADF where it names nothing.
    let lent = unsafe { BorrowedFd::borrow_raw(number) };
    if let Err(errno) = rustix::io::fcntl_setfd(lent, FdFlags::CLOEXEC) {
        taken.remove(&number);
        return Err(os("fcntl")(errno));
    }
    // SAFETY: it is open, and TAKEN lets nobody own it twice; this process was started with it, so no other owner knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
