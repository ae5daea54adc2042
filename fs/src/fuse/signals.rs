//! Signals that end the mount or ask about it.
//!
//! Owns the one thread that waits for them. Invariant: no handler runs in signal context; every other thread has them blocked.

use super::mount::Mounted;
use super::session::SessionError;
use super::statistics::Statistics;
use crate::union::Union;
use nix::sys::signal::{SigSet, Signal};
use std::sync::Arc;

/// What a server answers that leaves a mount behind which somebody else made and may still use.
const EXIT_IN_USE: i32 = 1;

/// The blocked signals, to be passed to `watch`.
pub(super) struct Blocked(SigSet);

/// Blocks them in this thread and all that it starts later.
pub(super) fn block() -> Result<Blocked, SessionError> {
    let watched = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1];
    let set = SigSet::from_iter(watched);
    set.thread_block().map_err(SessionError::process("cannot block signals"))?;
    Ok(Blocked(set))
}

/// Starts the thread that answers them.
pub(super) fn watch(Blocked(set): Blocked, mounted: Arc<Mounted>, union: Arc<Union>) -> Result<(), SessionError> {
    let wait = move || {
        let mut unmounted = false;
        loop {
            match set.wait() {
                Ok(Signal::SIGUSR1) => eprint!("{}", Statistics::own(union.inode_count(), false).table(colour())),
                // The mount is gone from the tree, but somebody still has files open in it. Asked twice, they lose them.
                Ok(_) if unmounted => {
                    union.finish_in_use();
                    std::process::exit(if mounted.is_given() { EXIT_IN_USE } else { 0 });
                }
                Ok(_) => match mounted.unmount() {
                    Ok(()) => unmounted = true,
                    Err(error) => log::error!("{error}"),
                },
                Err(errno) => log::error!("waiting for signals failed: {errno}"),
            }
        }
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(wait)
        .map(drop)
        .map_err(SessionError::process("cannot start a thread"))
}

/// Standard error may be a file.
fn colour() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr())
}
