//! How many system calls this thread has made for layers and union.
//!
//! Every wrapper of this folder counts its calls here. close(2) is not counted: a descriptor is closed by whoever drops it
//! last. Must not know requests. Invariant: reading the count makes no call.

use std::cell::Cell;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// Counts calls that are about to be made.
#[inline]
pub fn count(calls: u64) {
    CALLS.set(CALLS.get() + calls);
}

/// The calls of this thread so far.
#[inline]
pub fn so_far() -> u64 {
    CALLS.get()
}
