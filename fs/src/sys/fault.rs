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

#[cfg(test)]
pub use armed::{arm, check};

#[cfg(test)]
mod armed {
    use super::Result;
    use crate::error::Error;
    use std::cell::Cell;

    thread_local! {
        static COUNTDOWN: Cell<Option<(u32, i32)>> = const { Cell::new(None) };
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
