//! The work directory: where files are built before one rename publishes them.
//!
//! Owns `WORKDIR/work` (temporary names, emptied at mount), `WORKDIR/work/incompat` (the markers of the kernel's
//! overlayfs), the lock that keeps a second mount out, and hands out `WORKDIR/index` and `WORKDIR/lamina`. Must not know
//! what is built. Invariant: a temporary name is gone when its `Temporary` is, unless it was published.

use super::marks::Marks;
use super::setup::SetupError;
use crate::error::{Error, Result};
use crate::sys::rename::At;
use crate::sys::{dir, open, stat, xattr};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const TEMPORARY_DIR: &str = "work";
/// The directory for what no other overlay filesystem keeps.
const OWN_DIR: &str = "lamina";
const INCOMPAT_DIR: &str = "incompat";
const VOLATILE_MARKER: &str = "volatile";
/// Levels of directories that clearing the work directory descends: what a mount leaves there is flat, what others left
/// may not be.
const REMOVE_DEPTH_MAX: usize = 512;

/// The work directory of one mount.
#[derive(Debug)]
pub struct WorkDir {
    base: OwnedFd,
    temporary: OwnedFd,
    own: OnceLock<OwnedFd>,
    counter: AtomicU64,
    marks: Marks,
}

impl WorkDir {
    /// Opens and locks a work directory; nothing in it has changed when this fails.
    pub fn open(path: &Path) -> Result<OwnedFd, SetupError> {
        let fail = |error| SetupError::Work { path: path.to_owned(), error };
        if let Err(error) = std::fs::create_dir(path)
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(fail(Error::Os { call: "mkdir", errno: error.raw_os_error().unwrap_or(libc::EIO) }));
        }
        let base = open::open_root(path).map_err(fail)?;
        let locked = match rustix::fs::flock(&base, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::AGAIN) => wait_for_lock(open::duplicate(base.as_fd()).map_err(fail)?),
            other => other,
        };
        match locked {
            Ok(()) => Ok(base),
            Err(Errno::AGAIN) => Err(SetupError::WorkInUse { path: path.to_owned() }),
            // Some network filesystems have no locks: then nothing tells a second mount.
            Err(Errno::OPNOTSUPP | Errno::NOLCK) => Ok(base),
            Err(errno) => Err(fail(crate::sys::os("flock")(errno))),
        }
    }

    /// Lets the next mount use the directory: this one is over.
    pub fn unlock(&self) {
        if let Err(errno) = rustix::fs::flock(&self.base, FlockOperation::Unlock) {
            tracing::debug!(%errno, "the work directory stays locked until the server exits");
        }
    }

    /// Takes the lock again, unless the next mount has it.
    pub fn lock_again(&self) -> bool {
        rustix::fs::flock(&self.base, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    /// Empties the temporary directory and takes it into use.
    pub fn prepare(base: OwnedFd, path: &Path, volatile: bool) -> Result<WorkDir, SetupError> {
        let fail = |error| SetupError::Work { path: path.to_owned(), error };
        let temporary = sub_dir(base.as_fd(), TEMPORARY_DIR).map_err(fail)?;
        make_plain(temporary.as_fd()).map_err(fail)?;
        if let Some(feature) = incompatible(temporary.as_fd()).map_err(fail)? {
            let marker = path.join(TEMPORARY_DIR).join(INCOMPAT_DIR).join(&feature);
            let feature = feature.to_string_lossy().into_owned();
            return Err(SetupError::Incompatible { path: path.to_owned(), feature, marker });
        }
        for entry in list(temporary.as_fd()).map_err(fail)? {
            remove_tree(temporary.as_fd(), &entry.name, 0).map_err(fail)?;
        }
        if volatile {
            let incompat = sub_dir(temporary.as_fd(), INCOMPAT_DIR).map_err(fail)?;
            sub_dir(incompat.as_fd(), VOLATILE_MARKER).map_err(fail)?;
        }
        Ok(WorkDir { base, temporary, own: OnceLock::new(), counter: AtomicU64::new(0), marks: Marks::default() })
    }

    /// A directory beside the temporary one, made on first use.
    pub fn side_dir(&self, name: &str) -> Result<OwnedFd> {
        sub_dir(self.base.as_fd(), name)
    }

    /// `WORKDIR/lamina`, made on first use and then kept open.
    pub fn own_dir(&self) -> Result<BorrowedFd<'_>> {
        if let Some(own) = self.own.get() {
            return Ok(own.as_fd());
        }
        let opened = self.side_dir(OWN_DIR)?;
        Ok(self.own.get_or_init(|| opened).as_fd())
    }

    /// `WORKDIR/lamina`, where it exists.
    pub fn existing_own_dir(&self) -> Result<Option<BorrowedFd<'_>>> {
        match self.own.get().is_some() || open::exists(self.base.as_fd(), OsStr::new(OWN_DIR))? {
            true => self.own_dir().map(Some),
            false => Ok(None),
        }
    }

    /// A directory beside the temporary one, where it exists.
    pub fn existing_side_dir(&self, name: &str) -> Result<Option<OwnedFd>> {
        match open::exists(self.base.as_fd(), OsStr::new(name))? {
            true => open::open_dir(self.base.as_fd(), OsStr::new(name)).map(Some),
            false => Ok(None),
        }
    }

    /// How many whiteouts and mark files the upper tree holds.
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// Which temporary directory this is. The kernel's overlayfs makes it anew at each mount that can be written.
    pub fn birth(&self) -> Result<String> {
        let found = stat::stat_fd(self.temporary.as_fd())?;
        Ok(format!("{}-{}-{}", found.ino, found.btime.seconds, found.btime.nanoseconds))
    }

    /// Device and inode number of the work directory.
    pub fn identity(&self) -> Result<(u64, u64)> {
        let found = stat::stat_fd(self.base.as_fd())?;
        Ok((found.dev, found.ino))
    }

    /// A name in the temporary directory that nothing has yet.
    pub fn temporary(&self) -> Temporary<'_> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        Temporary { work: self, name: OsString::from(format!("#{number:x}")), armed: true }
    }
}

/// A name in the temporary directory; what stands under it is removed on drop.
pub struct Temporary<'a> {
    work: &'a WorkDir,
    name: OsString,
    armed: bool,
}

impl Temporary<'_> {
    /// The temporary directory.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.work.temporary.as_fd()
    }

    /// The name in it.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Both, for a rename.
    pub fn at(&self) -> At<'_> {
        At { dir: self.dir(), name: &self.name }
    }

    /// The name was renamed away: nothing is left to remove.
    pub fn published(mut self) {
        self.armed = false;
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        if let Err(error) = remove_marked(self.dir(), &self.name, &self.work.marks) {
            tracing::warn!(%error, name = ?self.name, "a temporary file stays in the work directory until the next mount");
        }
    }
}

/// umount(2) returns before the server of the old mount has noticed: it gets this long to let go.
const LOCK_WAIT: Duration = Duration::from_secs(3);

/// Waits for a lock that a server which is about to exit still holds; `AGAIN` where it is held for longer.
fn wait_for_lock(base: OwnedFd) -> Result<(), Errno> {
    let (answer, waited) = std::sync::mpsc::channel();
    // A thread of its own, because flock(2) knows no time limit. The lock belongs to the open file, so it is the caller's.
    let waiter = std::thread::Builder::new().name("lock".to_owned());
    let spawned = waiter.spawn(move || {
        // Nobody listens any more after the time limit: then the process is about to exit with an error.
        answer.send(rustix::fs::flock(&base, FlockOperation::LockExclusive)).unwrap_or_default();
    });
    match spawned {
        Ok(_) => waited.recv_timeout(LOCK_WAIT).unwrap_or(Err(Errno::AGAIN)),
        Err(_) => Err(Errno::AGAIN),
    }
}

fn sub_dir(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    match open::make_dir(parent, OsStr::new(name), 0o700) {
        Err(error) if !error.is(libc::EEXIST) => return Err(error),
        _ => {}
    }
    open::open_dir(parent, OsStr::new(name))
}

/// Lets nothing that is built in a directory inherit a list of who may what; the kernel's overlayfs does the same.
fn make_plain(dir: BorrowedFd<'_>) -> Result<()> {
    let list = OsStr::new("system.posix_acl_default");
    match xattr::value(dir, list)? {
        Some(_) => xattr::remove(dir, list),
        None => Ok(()),
    }
}

fn incompatible(temporary: BorrowedFd<'_>) -> Result<Option<OsString>> {
    if !open::exists(temporary, OsStr::new(INCOMPAT_DIR))? {
        return Ok(None);
    }
    let incompat = open::open_dir(temporary, OsStr::new(INCOMPAT_DIR))?;
    Ok(list(incompat.as_fd())?.into_iter().next().map(|entry| entry.name))
}

/// Lists a directory through a descriptor of its own, so that the given one keeps its position.
pub fn list(dir: BorrowedFd<'_>) -> Result<Vec<dir::DirEntry>> {
    dir::read_dir(open::reopen_dir(dir)?.as_fd())
}

/// Removes a temporary name; what lies below it, if it was a directory of the tree, are marks, and counted as taken.
fn remove_marked(parent: BorrowedFd<'_>, name: &OsStr, marks: &Marks) -> Result<()> {
    remove_telling(parent, name, 0, &|dir, entry| {
        // Of a device, only its link count tells whether others still stand for the same.
        let before = match entry.format {
            _ if marks.is_shared(entry.ino) => return Ok(()),
            Some(libc::S_IFREG) => None,
            _ => stat::stat_at(dir, &entry.name)?,
        };
        match before {
            Some(before) => marks.name_taken(&before),
            None => marks.taken(),
        }
        Ok(())
    })
}

/// Removes a name with everything below it; absent is fine.
pub fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr, depth: usize) -> Result<()> {
    remove_telling(parent, name, depth, &|_, _| Ok(()))
}

/// The same; `tell` hears of each name below it before it goes.
fn remove_telling(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    depth: usize,
    tell: &dyn Fn(BorrowedFd<'_>, &dir::DirEntry) -> Result<()>,
) -> Result<()> {
    match open::unlink(parent, name) {
        Ok(()) => return Ok(()),
        Err(error) if error.is(libc::ENOENT) => return Ok(()),
        Err(error) if error.is(libc::EISDIR) => {}
        Err(error) => return Err(error),
    }
    if depth > REMOVE_DEPTH_MAX {
        return Err(Error::Os { call: "rmdir", errno: libc::ELOOP });
    }
    match open::remove_dir(parent, name) {
        Err(error) if error.is(libc::ENOTEMPTY) || error.is(libc::EEXIST) => {}
        other => return other,
    }
    let fd = open::open_dir(parent, name)?;
    let entries = match list(fd.as_fd()) {
        Err(error) if error.is(libc::EACCES) => {
            stat::set_mode(fd.as_fd(), 0o700)?;
            list(fd.as_fd())?
        }
        other => other?,
    };
    for entry in entries {
        tell(fd.as_fd(), &entry)?;
        remove_telling(fd.as_fd(), &entry.name, depth + 1, tell)?;
    }
    open::remove_dir(parent, name)
}
