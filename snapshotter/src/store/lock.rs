//! One process at a time holds a store.
//!
//! Owns the lock file. Invariant: the lock goes with the process, however it ends, and servers that it started do not inherit it.
//!
//! A process that is killed while it starts another one leaves the lock for a moment with that one, until it has become the other program:
//! whoever finds a lock whose holder is gone waits.

use crate::error::{Error, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

/// Higher than any that is open when the store is opened, and lower than any limit of descriptors.
const DESCRIPTOR_MIN: i32 = 200;

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
    // Both are held for their Drop; a child of ours that is not yet another program has both, see `sign`.
    _file: Flock<File>,
    _high: File,
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
            if !holder.gone && (holder.daemon || hold == Hold::Daemon) {
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
        // At an exec the kernel closes descriptors in ascending order: this one must go after that of the database, which has a lock
        // of its own, or the next holder of ours would be refused by that one.
        let high = rustix::io::fcntl_dupfd_cloexec(&*file, DESCRIPTOR_MIN).map_err(Error::io("lock", path))?;
        Ok(StoreLock { _file: file, _high: high.into() })
    }
}

struct Holder {
    daemon: bool,
    gone: bool,
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
            let name = format!("{program} (process {process})");
            Holder { daemon: *word == Hold::Daemon.word(), gone: has_ended(process), name }
        }
        _ => Holder { daemon: false, gone: false, name: "another process".to_owned() },
    })
}

/// Whether no such process is there, or it waits for its parent only.
fn has_ended(process: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The state follows the name, which may hold anything.
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

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

    /// The crash test found it: a daemon was killed between the fork and the exec of a server, which had the lock for some
    /// milliseconds more, and the next daemon was refused in the name of a dead one.
    #[test]
    fn a_lock_that_a_dead_holder_left_to_its_child_is_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("lock");
        std::fs::write(&path, "daemon 999999999 lamina-snapshotter\n").unwrap();
        let mut flock = Command::new("flock");
        let mut child = flock
            .arg(&path)
            .args(["sh", "-c", "echo locked; cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
        let root = root.path().to_owned();
        let waiting = std::thread::spawn(move || StoreLock::take(&root, Hold::Daemon).map(drop));
        // It ends when its input does.
        drop(child.stdin.take());
        child.wait().unwrap();
        waiting.join().unwrap().unwrap();
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
