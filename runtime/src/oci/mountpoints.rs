//! Where mounts stand in the root filesystem: found there, or made, and a note of what was made.
//!
//! Must not know what is mounted. Invariants: a name is in the note before it is in the root filesystem, so that a kill in between leaves none that was not
//! noted; a directory that was there keeps its time.
//!
//! ```text
//! note    one record a name, never taken back: d|f PATH NUL, the path from the root on, its links resolved
//! ```

use super::log;
use super::resolve::{LINKS_MAX, find, lexical, stat};
use crate::error::{Doing, Result};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, mkdirat, openat, readlinkat, utimensat,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Permissions of what is made, whatever the caller's umask is.
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(lamina_fs::layer::MOUNTPOINT_DIR_MODE);
const FILE_MODE: Mode = Mode::from_raw_mode(lamina_fs::layer::MOUNTPOINT_FILE_MODE);

/// What is made where a mount finds nothing to stand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A directory.
    Directory,
    /// An empty file.
    File,
}

/// A file that remembers what was made.
#[derive(Debug)]
pub struct Note {
    file: File,
    path: PathBuf,
}

impl Note {
    /// Opens a note, which is made where it is missing.
    pub fn open(path: &Path) -> Result<Note> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        Ok(Note { file: file.doing(|| format!("open {}", path.display()))?, path: path.to_owned() })
    }

    /// What has been noted; nothing where there is no note. A record that was not written to its end counts for nothing.
    pub fn read(path: &Path) -> Result<Vec<(PathBuf, Target)>> {
        let text = match std::fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            outcome => outcome.doing(|| format!("read {}", path.display()))?,
        };
        let whole = text.split_inclusive(|byte| *byte == 0).filter_map(|record| record.strip_suffix(&[0]));
        let parsed = whole.filter_map(|record| match record.split_first()? {
            (b'd', path) => Some((Path::new(OsStr::from_bytes(path)).to_owned(), Target::Directory)),
            (b'f', path) => Some((Path::new(OsStr::from_bytes(path)).to_owned(), Target::File)),
            _ => None,
        });
        Ok(parsed.collect())
    }

    fn add(&self, path: &Path, target: Target) -> Result<()> {
        let kind: &[u8] = if target == Target::Directory { b"d" } else { b"f" };
        let record = [kind, path.as_os_str().as_bytes(), b"\0"].concat();
        (&self.file).write_all(&record).doing(|| format!("write {}", self.path.display()))
    }
}

/// Opens what the name means, and makes it, with the directories before it, where it is missing. What is made on the root filesystem itself is noted.
pub fn find_or_make(root: BorrowedFd<'_>, name: &Path, target: Target, note: Option<&Note>) -> Result<OwnedFd> {
    Ground { root, note }.make(&lexical(name), target, LINKS_MAX)
}

struct Ground<'a> {
    root: BorrowedFd<'a>,
    note: Option<&'a Note>,
}

impl Ground<'_> {
    fn make(&self, name: &Path, target: Target, links_left: usize) -> Result<OwnedFd> {
        if let Some(found) = find(self.root, name)? {
            return Ok(found);
        }
        let doing = || format!("make {} in the root filesystem", name.display());
        let Some(last) = name.file_name() else { return Err(Errno::NOENT).doing(doing) };
        let before = name.parent().unwrap_or(Path::new("/"));
        let directory = self.make(before, Target::Directory, links_left)?;
        // A link that leads nowhere yet: what it names is made instead, inside the root.
        if links_left > 0
            && let Ok(link) = readlinkat(&directory, last, Vec::new())
        {
            let link = Path::new(OsStr::from_bytes(link.as_bytes())).to_owned();
            return self.make(&lexical(&before.join(link)), target, links_left - 1);
        }
        let kept = self.note(&directory, last, target)?;
        match make_one(&directory, last, target) {
            // Somebody else made the name in the meantime: it is opened below, without following a link.
            Ok(()) | Err(Errno::EXIST | Errno::LOOP) => {}
            Err(errno) => return Err(errno).doing(doing),
        }
        if let Some(kept) = kept {
            keep_time(&directory, &kept);
        }
        openat(&directory, last, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).doing(doing)
    }

    /// Notes what is about to be made, unless it is on a mount. Answers what the directory was.
    fn note(&self, directory: &OwnedFd, last: &OsStr, target: Target) -> Result<Option<Stat>> {
        let Some(note) = self.note else { return Ok(None) };
        let found = stat(directory)?;
        if found.st_dev != stat(self.root)?.st_dev {
            return Ok(None);
        }
        let (root, directory) = (place(self.root.as_raw_fd())?, place(directory.as_raw_fd())?);
        match directory.strip_prefix(&root) {
            Ok(below) => note.add(&Path::new("/").join(below).join(last), target)?,
            Err(_) => log::debug(&format!("{} is not below {}", directory.display(), root.display())),
        }
        Ok(Some(found))
    }
}

/// Where an open file lies, its links resolved. Source: proc_pid_fd(5).
fn place(fd: i32) -> Result<PathBuf> {
    let link = readlinkat(CWD, format!("/proc/self/fd/{fd}"), Vec::new()).doing(|| "look where a file lies".into())?;
    Ok(Path::new(OsStr::from_bytes(link.as_bytes())).to_owned())
}

fn make_one(directory: &OwnedFd, last: &OsStr, target: Target) -> rustix::io::Result<()> {
    let umask = rustix::process::umask(Mode::empty());
    let made = match target {
        Target::Directory => mkdirat(directory, last, DIRECTORY_MODE),
        Target::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(directory, last, flags, FILE_MODE).map(drop)
        }
    };
    rustix::process::umask(umask);
    made
}

/// A time that only says when the runtime passed by is no change of the directory.
fn keep_time(directory: &OwnedFd, was: &Stat) {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: was.st_mtime, tv_nsec: was.st_mtime_nsec as _ },
    };
    if let Err(errno) = utimensat(directory, ".", &times, AtFlags::empty()) {
        log::debug(&format!("keep the time of a directory of the root filesystem: {errno}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn what_is_made_is_noted_where_its_links_lead_and_what_was_there_keeps_its_time() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("root");
        fs::create_dir_all(root.join("run")).unwrap();
        symlink("/run", root.join("var")).unwrap();
        symlink("../run/resolv.conf", root.join("link")).unwrap();
        let old = UNIX_EPOCH + Duration::new(1_000_000_000, 5);
        File::open(root.join("run")).unwrap().set_modified(old).unwrap();
        let (path, opened) = (home.path().join("note"), File::open(&root).unwrap());
        let note = Note::open(&path).unwrap();
        for (name, target) in
            [("/var/a/b", Target::Directory), ("link", Target::File), ("/run", Target::Directory), ("/x", Target::File)]
        {
            find_or_make(opened.as_fd(), Path::new(name), target, Some(&note)).unwrap();
        }
        let expected = [
            ("/run/a", Target::Directory),
            ("/run/a/b", Target::Directory),
            ("/run/resolv.conf", Target::File),
            ("/x", Target::File),
        ];
        assert_eq!(Note::read(&path).unwrap(), expected.map(|(name, target)| (PathBuf::from(name), target)));
        assert_eq!(fs::metadata(root.join("run")).unwrap().modified().unwrap(), old);
        let mode = |name: &str| fs::metadata(root.join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("run/a/b"), mode("x")), (0o755, 0o644));
    }

    #[test]
    fn a_record_that_was_cut_off_counts_for_nothing() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("note");
        assert_eq!(Note::read(&path).unwrap(), []);
        fs::write(&path, b"d/dev\0q/what\0\0f/etc/ho").unwrap();
        assert_eq!(Note::read(&path).unwrap(), [(PathBuf::from("/dev"), Target::Directory)]);
    }
}
