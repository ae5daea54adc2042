//! One process at a time holds a store.
//!
//! Owns the lock file. Invariant: the lock goes with the process, however it ends, and servers that it started do not inherit it.

use crate::error::{Error, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

/// How long the holder means to hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Until the command is done: others wait.
    Command,
    /// As long as the daemon lives: others are told at once.
    Daemon,
}

impl Hold {
    fn word(self) -> &'static str {
        match self {
            Hold::Command => "command",
            Hold::Daemon => "daemon",
        }
    }
}

/// The lock, held.
#[derive(Debug)]
pub struct StoreLock {
    // Held for its Drop: closing the descriptor is what unlocks.
    _file: Flock<File>,
}

impl StoreLock {
    /// Takes the lock of the store at `root`. Waits for a command to end; does not wait for a daemon.
    ///
    /// # Errors
    /// [`Error::InUse`] names the daemon; [`Error::Io`].
    pub fn take(root: &Path, hold: Hold) -> Result<StoreLock> {
        let path = root.join("lock");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.map_err(Error::io("open", &path))?;
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(locked) => return StoreLock::sign(locked, hold, &path),
                Err((free, Errno::EWOULDBLOCK)) => free,
                Err((_, errno)) => return Err(Error::io("lock", &path)(errno)),
            };
            let holder = read_holder(&mut file).map_err(Error::io("read", &path))?;
            if holder.daemon || hold == Hold::Daemon {
                return Err(Error::InUse { root: root.to_owned(), holder: holder.name });
            }
            tracing::info!(holder = holder.name, "waiting for the store");
            file = match Flock::lock(file, FlockArg::LockExclusive) {
                Ok(locked) => return StoreLock::sign(locked, hold, &path),
                Err((free, Errno::EINTR)) => free,
                Err((_, errno)) => return Err(Error::io("lock", &path)(errno)),
            };
        }
    }

    fn sign(mut file: Flock<File>, hold: Hold, path: &Path) -> Result<StoreLock> {
        let program = std::env::args().next().unwrap_or_default();
        let program = Path::new(&program).file_name().map_or_else(|| "a program".into(), |name| name.to_string_lossy());
        let line = format!("{} {} {program}\n", hold.word(), std::process::id());
        let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(line.as_bytes()));
        // A full disk must not keep the store shut: the line is for messages only.
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "cannot note who holds the store");
        }
        Ok(StoreLock { _file: file })
    }
}

struct Holder {
    daemon: bool,
    name: String,
}

/// What the holder noted. A holder between its lock and its note is a command to us: then we wait, and look again.
fn read_holder(file: &mut File) -> std::io::Result<Holder> {
    let mut line = String::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_string(&mut line)?;
    let words: Vec<&str> = line.trim().splitn(3, ' ').collect();
    Ok(match words.as_slice() {
        [word, process, program] => {
            Holder { daemon: *word == Hold::Daemon.word(), name: format!("{program} (process {process})") }
        }
        _ => Holder { daemon: false, name: "another process".to_owned() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_keeps_others_out_and_is_named() {
        let root = tempfile::tempdir().unwrap();
        let held = StoreLock::take(root.path(), Hold::Daemon).unwrap();
        for hold in [Hold::Command, Hold::Daemon] {
            let refused = StoreLock::take(root.path(), hold).unwrap_err().to_string();
            assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        }
        drop(held);
        StoreLock::take(root.path(), Hold::Daemon).unwrap();
    }

    #[test]
    fn a_command_waits_for_a_command() {
        let root = tempfile::tempdir().unwrap();
        let held = StoreLock::take(root.path(), Hold::Command).unwrap();
        let path = root.path().to_owned();
        let other = std::thread::spawn(move || StoreLock::take(&path, Hold::Command).map(drop));
        drop(held);
        other.join().unwrap().unwrap();
    }
}
