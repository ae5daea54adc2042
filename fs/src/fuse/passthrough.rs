//! Files whose data the kernel reaches by itself: `io=passthrough`.
//!
//! Owns how each open of a file is answered, and the kernel's ids of backing files. Must not know which file can be lent;
//! the union does. Invariants: while a file is open in one mode no open of it is answered in the other; a file that was
//! lent is never read through the page cache of the mount again.
//!
//! The kernel allows one mode per inode at a time and answers EIO where the server mixes them (fs/fuse/iomode.c). It counts
//! an open after our answer and takes it back before it sends RELEASE, so its count is never above ours: a mode that we
//! count no open in can be left. Why nothing goes back from passed to cached: a mapping of a passed file keeps the backing
//! file and not ours, so it may live on, and store, after the last RELEASE.

use super::convert::entry_attributes;
use super::errno::errno;
use super::reply::{self, GENERATION, NO_HANDLE, attempt, run};
use super::session::SessionError;
use crate::error::{Error, Result};
use crate::sys::ioctl;
use crate::union::{Attributes, Caller, InodeNumber, Intent, Loan, Union};
use dashmap::DashMap;
use fuser::{BackingId, FileHandle, FopenFlags, INodeNo, Notifier, OpenFlags, ReplyCreate, ReplyEmpty, ReplyOpen};
use log::Level;
use parking_lot::Mutex;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Comes back with the RELEASE of a passed open; that of a cached one is `NO_HANDLE`.
const PASSED_HANDLE: FileHandle = FileHandle(1);

/// The kernel drops what it has of the file in the mount's page cache: no `FOPEN_KEEP_CACHE`, which it would refuse.
const PASSED: FopenFlags = FopenFlags::empty();

/// Names no byte: `FUSE_NOTIFY_INVAL_INODE` then drops the attributes alone.
const ATTRIBUTES_ONLY: i64 = -1;

/// The open files of one mount.
#[derive(Default)]
pub(super) struct Passthrough {
    /// Those that are open, and no others.
    files: DashMap<InodeNumber, Arc<Mutex<Opens>>>,
    /// Absent until the kernel has agreed to the connection; no request is answered before.
    notifier: OnceLock<Notifier>,
    /// The log has said that a file is not passed through; if one is not, many are not.
    warned: AtomicBool,
}

/// How often one file is open. Its lock is held over everything that an answer is decided by.
#[derive(Default)]
struct Opens {
    cached: usize,
    passed: usize,
    /// The same for every open, while there is a passed one.
    backing: Option<Arc<BackingId>>,
}

/// How an open is answered.
enum Mode {
    /// Data goes through the server and the mount's page cache.
    Cached,
    /// The kernel opens the backing file for itself.
    Passed(Arc<BackingId>),
}

impl Passthrough {
    /// Finds out whether the kernel takes backing files at all.
    pub(super) fn start(
        &self,
        union: &Union,
        device: BorrowedFd<'_>,
        notifier: Notifier,
    ) -> std::result::Result<(), SessionError> {
        let tried = union.sample().and_then(|sample| ioctl::try_backing(device, sample.as_fd()));
        tried.map_err(|error| SessionError::Passthrough { advice: advice(error), error })?;
        self.notifier.get_or_init(|| notifier);
        Ok(())
    }

    /// Answers OPEN.
    pub(super) fn open(&self, union: &Union, caller: &Caller, file: InodeNumber, flags: OpenFlags, reply: ReplyOpen) {
        let intent = intent(flags.0);
        let register = |backing: BorrowedFd<'_>| reply.open_backing(backing);
        let opened = attempt("open", || {
            self.with_opens(file, |opens| {
                let mode = match self.pass(union, file, intent, opens, register)? {
                    Some(backing) => Mode::Passed(backing),
                    None => {
                        union.open(caller, file, intent.write, flags.0 & libc::O_TRUNC != 0)?;
                        Mode::Cached
                    }
                };
                opens.count(&mode);
                Ok(mode)
            })
        });
        match opened {
            Ok(Mode::Cached) => reply.opened(NO_HANDLE, reply::OPENED),
            Ok(Mode::Passed(backing)) => reply.opened_passthrough(PASSED_HANDLE, PASSED, &backing),
            Err(error) => reply.error(errno(error)),
        }
    }

    /// Answers CREATE, once the file is there and its open is counted by the union.
    pub(super) fn created(
        &self,
        union: &Union,
        created: Result<Attributes>,
        flags: i32,
        timeout: Duration,
        reply: ReplyCreate,
    ) {
        let made = match created {
            Ok(made) => made,
            Err(error) => return reply.error(errno(error)),
        };
        let (file, intent) = (made.number, intent(flags));
        let register = |backing: BorrowedFd<'_>| reply.open_backing(backing);
        let mode = attempt("create", || {
            self.with_opens(file, |opens| {
                let lent = self.lend(union, file, intent, opens, register, |loan| {
                    // The kernel has no attributes of it that it could believe.
                    loan.made();
                });
                let mode = match lent {
                    Ok(Some(backing)) => Mode::Passed(backing),
                    Ok(None) => Mode::Cached,
                    // The file is there, and nobody else has it open: to fail now would leave it behind.
                    Err(error) => {
                        log::warn!("a new file is not passed through: {error}");
                        Mode::Cached
                    }
                };
                opens.count(&mode);
                Ok(mode)
            })
        });
        // As they are now that it is lent.
        let made = Attributes { unwatched: made.unwatched || intent.read && intent.write, ..made };
        let (timeout, attributes) = (reply::attribute_timeout(&made, timeout), entry_attributes(&made));
        match mode {
            Ok(Mode::Cached) => reply.created(&timeout, &attributes, GENERATION, NO_HANDLE, reply::OPENED),
            Ok(Mode::Passed(backing)) => {
                reply.created_passthrough(&timeout, &attributes, GENERATION, PASSED_HANDLE, PASSED, &backing);
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    /// Answers RELEASE.
    pub(super) fn release(&self, union: &Union, file: InodeNumber, handle: FileHandle, reply: ReplyEmpty) {
        let released = run("release", || {
            union.release(file);
            let last = self.with_opens(file, |opens| opens.discount(handle == PASSED_HANDLE));
            // Given back to the kernel here, after the lock.
            drop(last);
        });
        reply::empty(reply, released);
    }

    /// Lends an existing file; the union counts the open.
    fn pass(
        &self,
        union: &Union,
        file: InodeNumber,
        intent: Intent,
        opens: &mut Opens,
        register: impl FnOnce(BorrowedFd<'_>) -> io::Result<BackingId>,
    ) -> Result<Option<Arc<BackingId>>> {
        self.lend(union, file, intent, opens, register, |loan| {
            loan.opened();
            // What the kernel believes now it would believe on, over stores that it does not see.
            if loan.made() {
                self.doubt_attributes(file);
            }
        })
    }

    /// The id of a file's backing, once `made` has noted the loan; `None` where the open is to be cached.
    fn lend(
        &self,
        union: &Union,
        file: InodeNumber,
        intent: Intent,
        opens: &mut Opens,
        register: impl FnOnce(BorrowedFd<'_>) -> io::Result<BackingId>,
        made: impl FnOnce(&Loan<'_>),
    ) -> Result<Option<Arc<BackingId>>> {
        if opens.cached > 0 {
            return Ok(None);
        }
        let Some(loan) = union.lend(file, intent)? else { return Ok(None) };
        let backing = match &opens.backing {
            Some(backing) => Arc::clone(backing),
            None => match register(loan.as_fd()) {
                Ok(backing) => Arc::new(backing),
                Err(cause) if loan.was_lent() => {
                    let errno = cause.raw_os_error().unwrap_or(libc::EIO);
                    return Err(Error::Os { call: "FUSE_DEV_IOC_BACKING_OPEN", errno });
                }
                Err(cause) => {
                    let level = match self.warned.swap(true, Ordering::Relaxed) {
                        false => Level::Warn,
                        true => Level::Debug,
                    };
                    log::log!(level, "inode {} is not passed through: {cause}", file.0);
                    return Ok(None);
                }
            },
        };
        opens.backing = Some(Arc::clone(&backing));
        made(&loan);
        Ok(Some(backing))
    }

    /// Lets the kernel forget the attributes of a file that somebody is just opening, so that it cannot be going away.
    fn doubt_attributes(&self, file: InodeNumber) {
        let Some(notifier) = self.notifier.get() else { return };
        if let Err(error) = notifier.inval_inode(INodeNo(file.0), ATTRIBUTES_ONLY, 0) {
            log::warn!("the kernel may show old times of inode {}: {error}", file.0);
        }
    }

    /// Does something with a file's opens, under its lock; forgets the file when it is not open afterwards.
    fn with_opens<T>(&self, file: InodeNumber, act: impl FnOnce(&mut Opens) -> T) -> T {
        let slot = Arc::clone(&self.files.entry(file).or_default());
        let done = act(&mut slot.lock());
        drop(slot);
        // Who has the slot meanwhile comes here after us. Nobody can come by it while it is looked at.
        self.files.remove_if(&file, |_, slot| Arc::strong_count(slot) == 1 && slot.lock().none());
        done
    }
}

impl Opens {
    fn none(&self) -> bool {
        self.cached == 0 && self.passed == 0
    }

    fn count(&mut self, mode: &Mode) {
        match mode {
            Mode::Cached => self.cached += 1,
            Mode::Passed(_) => self.passed += 1,
        }
    }

    /// Takes an open back; returns the id of the backing file when no passed one is left.
    fn discount(&mut self, passed: bool) -> Option<Arc<BackingId>> {
        let count = if passed { &mut self.passed } else { &mut self.cached };
        *count = count.saturating_sub(1);
        match self.passed {
            0 => self.backing.take(),
            _ => None,
        }
    }
}

/// What an open file is for; `flags` of open(2). An access mode of 3 neither reads nor writes, but asks for both permissions.
fn intent(flags: i32) -> Intent {
    let access = flags & libc::O_ACCMODE;
    Intent {
        read: access == libc::O_RDONLY || access == libc::O_RDWR,
        write: access != libc::O_RDONLY,
        append: flags & libc::O_APPEND != 0,
        direct: flags & libc::O_DIRECT != 0,
    }
}

/// The way out.
fn advice(error: Error) -> &'static str {
    match error.errno() {
        Some(libc::EPERM | libc::ENOTTY) => {
            "it needs Linux 6.9 or newer, and CAP_SYS_ADMIN outside of any user namespace: mount as root of the host, or leave io=passthrough out"
        }
        Some(libc::ELOOP) => {
            "the upper layer lies on a filesystem that lies on too many others: put it elsewhere, or leave io=passthrough out"
        }
        _ => "leave io=passthrough out",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_descriptors_that_read_and_write_can_map_for_storing() {
        let both = |flags| (intent(flags).read, intent(flags).write);
        assert_eq!(both(libc::O_RDONLY | libc::O_NOFOLLOW), (true, false));
        assert_eq!(both(libc::O_WRONLY | libc::O_APPEND), (false, true));
        assert_eq!(both(libc::O_RDWR), (true, true));
        assert_eq!(both(libc::O_ACCMODE), (false, true));
    }

    #[test]
    fn a_file_is_kept_while_it_is_open_and_no_longer() {
        let passthrough = Passthrough::default();
        let file = InodeNumber(7);
        passthrough.with_opens(file, |opens| opens.count(&Mode::Cached));
        passthrough.with_opens(file, |opens| opens.count(&Mode::Cached));
        assert!(passthrough.with_opens(file, |opens| opens.discount(false)).is_none());
        assert_eq!(passthrough.files.len(), 1);
        assert!(passthrough.with_opens(file, |opens| opens.discount(false)).is_none());
        assert_eq!(passthrough.files.len(), 0);
        passthrough.with_opens(file, |_| {});
        assert_eq!(passthrough.files.len(), 0);
    }
}
