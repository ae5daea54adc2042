//! The driver, with every request counted and answered in its thread's turn.
//!
//! Owns the list of requests once more, each with its opcode and length, and the ioctls that tell the counters. Must not know
//! what a request does. Invariants: every operation of `Filesystem` is listed, or a request would be answered by `fuser` instead of
//! the driver; reading the counters does not change them.

use super::counters::{self, Opcode};
use super::driver::Driver;
use super::errno::errno;
use super::statistics::Statistics;
use super::turns::{Asker, Length, Turns};
use super::usage::Answer;
use crate::error::Error;
use crate::sys::ioctl::{READ_STATISTICS, READ_USAGE, RESET_STATISTICS};
use crate::union::Union;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo, IoctlFlags, KernelConfig,
    LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek,
    ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::SystemTime;

/// A driver whose requests are counted.
pub(super) struct Counted {
    driver: Driver,
    turns: Arc<Turns>,
    union: Arc<Union>,
    readers: Readers,
    /// A thread counts what the upper layer takes.
    counting: Arc<AtomicBool>,
}

/// The directory handles through which the counters are being read: few, for moments.
#[derive(Default)]
struct Readers {
    /// How many, so that closing any other directory takes no lock.
    count: AtomicUsize,
    handles: Mutex<Vec<u64>>,
}

impl Readers {
    /// Whether this handle was none until now. Zero is none: where directories are not opened, none is closed.
    fn add(&self, handle: u64) -> bool {
        let mut handles = self.handles.lock();
        let new = handle != 0 && !handles.contains(&handle);
        if new {
            handles.push(handle);
            self.count.store(handles.len(), Ordering::Relaxed);
        }
        new
    }

    /// Whether this handle was one.
    fn remove(&self, handle: u64) -> bool {
        if self.count.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let mut handles = self.handles.lock();
        let place = handles.iter().position(|reader| *reader == handle);
        place.map(|place| handles.swap_remove(place));
        self.count.store(handles.len(), Ordering::Relaxed);
        place.is_some()
    }
}

impl Counted {
    pub(super) fn new(driver: Driver, turns: Arc<Turns>, union: Arc<Union>) -> Counted {
        Counted { driver, turns, union, readers: Readers::default(), counting: Arc::default() }
    }

    /// Counts a request and answers it in turn.
    fn count(&self, request: &Request, opcode: Opcode, answer: impl FnOnce()) {
        let asker = Asker { pid: request.pid(), data: matches!(opcode, Opcode::Read | Opcode::Write) };
        self.turns.take(length(opcode), asker, || counters::count(opcode, answer));
    }

    /// Tells the counters, or what the upper layer takes, to whoever mounted and to root: others would learn what a mount is
    /// used for.
    fn tell(&self, request: &Request, handle: FileHandle, command: u32, reply: ReplyIoctl) {
        if request.uid() != 0 && request.uid() != nix::unistd::geteuid().as_raw() {
            return reply.error(Errno::EPERM);
        }
        if self.readers.add(handle.0) {
            counters::discount(Opcode::Opendir);
        }
        match command {
            READ_USAGE => match self.usage() {
                Ok(answer) => reply.ioctl(0, &answer.encode()),
                Err(error) => reply.error(errno(error)),
            },
            _ => reply.ioctl(0, &Statistics::own(self.union.inode_count(), command == RESET_STATISTICS).encode()),
        }
    }

    /// What the upper layer takes. Where that is not known, a thread begins to count, once.
    fn usage(&self) -> Result<Answer, Error> {
        if self.union.read_only() {
            return Ok(Answer::ReadOnly);
        }
        if let Some(usage) = self.union.usage()? {
            return Ok(Answer::Known(usage));
        }
        if !self.counting.swap(true, Ordering::Relaxed) {
            let (union, counting) = (Arc::clone(&self.union), Arc::clone(&self.counting));
            let count = move || {
                if let Err(error) = union.recount() {
                    log::warn!("what the upper layer takes cannot be counted: {error}");
                }
                // After a failure the next question has it counted again.
                counting.store(false, Ordering::Relaxed);
            };
            if let Err(error) = std::thread::Builder::new().name("count".to_owned()).spawn(count) {
                self.counting.store(false, Ordering::Relaxed);
                log::warn!("cannot start a thread that counts what the upper layer takes: {error}");
            }
        }
        Ok(Answer::Counting)
    }
}

/// How an operation uses its thread. Reads and writes of data are quick where the page cache has it, and the watch sees when
/// it has not.
fn length(opcode: Opcode) -> Length {
    match opcode {
        Opcode::Fsync | Opcode::Fsyncdir | Opcode::CopyFileRange | Opcode::Fallocate => Length::Long,
        // `fuser` hands a BATCH_FORGET over one by one.
        Opcode::Forget => Length::Batched,
        _ => Length::Quick,
    }
}

/// Operations that are counted and passed on.
macro_rules! counted {
    ($($opcode:ident: $operation:ident($($argument:ident: $type:ty),*);)*) => {$(
        fn $operation(&self, request: &Request, $($argument: $type),*) {
            self.count(request, Opcode::$opcode, || self.driver.$operation(request, $($argument),*));
        }
    )*};
}

impl Filesystem for Counted {
    fn init(&mut self, request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        self.driver.init(request, config)
    }

    fn destroy(&mut self) {
        self.driver.destroy();
    }

    fn ioctl(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        flags: IoctlFlags,
        command: u32,
        input: &[u8],
        out_size: u32,
        reply: ReplyIoctl,
    ) {
        match command {
            READ_STATISTICS | RESET_STATISTICS | READ_USAGE if node == INodeNo::ROOT => {
                self.tell(request, handle, command, reply);
            }
            _ => self.count(request, Opcode::Ioctl, || {
                self.driver.ioctl(request, node, handle, flags, command, input, out_size, reply);
            }),
        }
    }

    fn releasedir(&self, request: &Request, node: INodeNo, handle: FileHandle, flags: OpenFlags, reply: ReplyEmpty) {
        match self.readers.remove(handle.0) {
            true => self.driver.releasedir(request, node, handle, flags, reply),
            false => self.count(request, Opcode::Releasedir, || {
                self.driver.releasedir(request, node, handle, flags, reply);
            }),
        }
    }

    counted! {
        Lookup: lookup(parent: INodeNo, name: &OsStr, reply: ReplyEntry);
        Forget: forget(node: INodeNo, lookups: u64);
        Getattr: getattr(node: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr);
        Setattr: setattr(
            node: INodeNo, mode: Option<u32>, uid: Option<u32>, gid: Option<u32>, size: Option<u64>,
            atime: Option<TimeOrNow>, mtime: Option<TimeOrNow>, ctime: Option<SystemTime>, handle: Option<FileHandle>,
            created: Option<SystemTime>, changed: Option<SystemTime>, saved: Option<SystemTime>,
            flags: Option<BsdFileFlags>, reply: ReplyAttr
        );
        Readlink: readlink(node: INodeNo, reply: ReplyData);
        Mknod: mknod(parent: INodeNo, name: &OsStr, mode: u32, umask: u32, device: u32, reply: ReplyEntry);
        Mkdir: mkdir(parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry);
        Unlink: unlink(parent: INodeNo, name: &OsStr, reply: ReplyEmpty);
        Rmdir: rmdir(parent: INodeNo, name: &OsStr, reply: ReplyEmpty);
        Symlink: symlink(parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry);
        Rename: rename(
            parent: INodeNo, name: &OsStr, new_parent: INodeNo, new_name: &OsStr, flags: RenameFlags, reply: ReplyEmpty
        );
        Link: link(node: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry);
        Open: open(node: INodeNo, flags: OpenFlags, reply: ReplyOpen);
        Create: create(parent: INodeNo, name: &OsStr, mode: u32, umask: u32, flags: i32, reply: ReplyCreate);
        Read: read(
            node: INodeNo, handle: FileHandle, offset: u64, size: u32, flags: OpenFlags, owner: Option<LockOwner>,
            reply: ReplyData
        );
        Write: write(
            node: INodeNo, handle: FileHandle, offset: u64, data: &[u8], write_flags: WriteFlags, flags: OpenFlags,
            owner: Option<LockOwner>, reply: ReplyWrite
        );
        Flush: flush(node: INodeNo, handle: FileHandle, owner: LockOwner, reply: ReplyEmpty);
        Release: release(
            node: INodeNo, handle: FileHandle, flags: OpenFlags, owner: Option<LockOwner>, flush: bool, reply: ReplyEmpty
        );
        Fsync: fsync(node: INodeNo, handle: FileHandle, data_only: bool, reply: ReplyEmpty);
        Opendir: opendir(node: INodeNo, flags: OpenFlags, reply: ReplyOpen);
        Readdir: readdir(node: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectory);
        Readdirplus: readdirplus(node: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectoryPlus);
        Fsyncdir: fsyncdir(node: INodeNo, handle: FileHandle, data_only: bool, reply: ReplyEmpty);
        Statfs: statfs(node: INodeNo, reply: ReplyStatfs);
        Setxattr: setxattr(
            node: INodeNo, name: &OsStr, value: &[u8], flags: i32, position: u32, reply: ReplyEmpty
        );
        Getxattr: getxattr(node: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr);
        Listxattr: listxattr(node: INodeNo, size: u32, reply: ReplyXattr);
        Removexattr: removexattr(node: INodeNo, name: &OsStr, reply: ReplyEmpty);
        Access: access(node: INodeNo, mask: AccessFlags, reply: ReplyEmpty);
        Getlk: getlk(
            node: INodeNo, handle: FileHandle, owner: LockOwner, start: u64, end: u64, kind: i32, pid: u32,
            reply: ReplyLock
        );
        Setlk: setlk(
            node: INodeNo, handle: FileHandle, owner: LockOwner, start: u64, end: u64, kind: i32, pid: u32, wait: bool,
            reply: ReplyEmpty
        );
        Bmap: bmap(node: INodeNo, block_size: u32, block: u64, reply: ReplyBmap);
        Poll: poll(
            node: INodeNo, handle: FileHandle, notifier: PollNotifier, events: PollEvents, flags: PollFlags,
            reply: ReplyPoll
        );
        Fallocate: fallocate(
            node: INodeNo, handle: FileHandle, offset: u64, length: u64, mode: i32, reply: ReplyEmpty
        );
        Lseek: lseek(node: INodeNo, handle: FileHandle, offset: i64, whence: i32, reply: ReplyLseek);
        CopyFileRange: copy_file_range(
            from: INodeNo, from_handle: FileHandle, from_offset: u64, to: INodeNo, to_handle: FileHandle, to_offset: u64,
            length: u64, flags: CopyFileRangeFlags, reply: ReplyWrite
        );
    }
}
