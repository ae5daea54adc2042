//! Fails the n-th changing system call of this thread: for tests only, compiled to nothing elsewhere.
//!
//! Every wrapper that changes something asks `check` first. Invariant: without `arm` nothing ever fails.

use crate::error::Result;

/// Lets the call through, or fails it where a test armed this thread.
#[cfg(not(test))]
#[inline(always)]
pub fn check(_call: &'static str) -> Result<()> {
    Ok(())
}

/// The same for a call that changes nothing and needs a free descriptor.
#[cfg(not(test))]
#[inline(always)]
pub fn check_open() -> Result<()> {
    Ok(())
}

#[cfg(test)]
pub use armed::{arm, arm_open, check, check_open};

#[cfg(test)]
mod armed {
    use super::Result;
    use crate::error::Error;
    use std::cell::Cell;

    thread_local! {
        static COUNTDOWN: Cell<Option<(u32, i32)>> = const { Cell::new(None) };
        static OPENS: Cell<Option<u32>> = const { Cell::new(None) };
        static FIRED: Cell<bool> = const { Cell::new(false) };
    }

    /// Disarms on drop.
    pub struct Armed;

    impl Armed {
        /// Whether the fault was reached.
        pub fn fired(&self) -> bool {
            FIRED.get()
        }
    }

    impl Drop for Armed {
        fn drop(&mut self) {
            COUNTDOWN.set(None);
            OPENS.set(None);
        }
    }

    /// Fails opening number `nth` (from 0) of this thread with EMFILE; later ones work again.
    pub fn arm_open(nth: u32) -> Armed {
        OPENS.set(Some(nth));
        FIRED.set(false);
        Armed
    }

    /// Lets the call through, or fails it where a test armed this thread.
    pub fn check_open() -> Result<()> {
        match OPENS.get() {
            None => Ok(()),
            Some(0) => {
                OPENS.set(None);
                FIRED.set(true);
                Err(Error::Os { call: "open", errno: libc::EMFILE })
            }
            Some(left) => {
                OPENS.set(Some(left - 1));
                Ok(())
            }
        }
    }

    /// Fails the changing call number `nth` (from 0) of this thread with `errno`; later calls work again.
    pub fn arm(nth: u32, errno: i32) -> Armed {
        COUNTDOWN.set(Some((nth, errno)));
        FIRED.set(false);
        Armed
    }

    /// Lets the call through, or fails it where a test armed this thread.
    pub fn check(call: &'static str) -> Result<()> {
        match COUNTDOWN.get() {
            None => Ok(()),
            Some((0, errno)) => {
                COUNTDOWN.set(None);
                FIRED.set(true);
                Err(Error::Os { call, errno })
            }
            Some((left, errno)) => {
                COUNTDOWN.set(Some((left - 1, errno)));
                Ok(())
            }
        }
    }
}
