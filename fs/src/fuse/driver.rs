//! Every request of the kernel, decoded, passed to the union, answered.
//!
//! Owns the list of operations. Must not know how layers combine. Invariants: nothing is decided here; an operation that
//! first has to copy much data up leaves its request thread; no panic escapes.

use super::convert::{caller, decode_device, inode, kills_privileges, rename_flags, time_change};
use super::errno::errno;
use super::ioctl::{self, Command};
use super::offload::{LONG_COPY_BYTES, Offload};
use super::passthrough::Passthrough;
use super::reply::{self, attempt, run};
use super::session::Serving;
use super::{directory, negotiate};
use crate::error::Error;
use crate::union::{Changes, InodeNumber, Union};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo, IoctlFlags, KernelConfig,
    LockOwner, OpenAccMode, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::cell::RefCell;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Bytes of one copy_file_range(2): the caller comes back for the rest, and the answer is a 32-bit number.
const COPY_RANGE_MAX: u64 = 1 << 30;

thread_local! {
    /// What READ fills. It grows to the largest request, which the kernel bounds by `TRANSFER_MAX`.
    static READ_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The transport of one mount.
pub(super) struct Driver {
    union: Arc<Union>,
    serving: Serving,
    offload: Offload,
    /// `None`: every file is read and written through the server.
    passthrough: Option<Arc<Passthrough>>,
    /// Numbers for open directories: the union needs none, the counters tell them apart.
    opened_dirs: AtomicU64,
}

impl Driver {
    pub(super) fn new(
        union: Arc<Union>,
        serving: Serving,
        offload: Offload,
        passthrough: Option<Arc<Passthrough>>,
    ) -> Driver {
        Driver { union, serving, offload, passthrough, opened_dirs: AtomicU64::new(0) }
    }

    /// Whether a change of this inode first copies so much that it must not hold a request thread.
    fn copies_long(&self, inode: InodeNumber) -> bool {
        run("copies_data", || self.union.copies_data(inode)).is_ok_and(|bytes| bytes >= LONG_COPY_BYTES)
    }

    /// Runs a change of `inode`, elsewhere if it first copies much.
    fn change(&self, inode: InodeNumber, job: impl FnOnce(&Union) + Send + 'static) {
        if !self.copies_long(inode) {
            return job(&self.union);
        }
        let union = Arc::clone(&self.union);
        self.offload.run(move || job(&union));
    }
}

impl Filesystem for Driver {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        negotiate::negotiate(&self.serving, config);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let result = attempt("lookup", || self.union.lookup(inode(parent), name));
        reply::lookup(reply, self.serving.timeout, result);
    }

    fn forget(&self, _: &Request, node: INodeNo, lookups: u64) {
        // No reply exists for this request: a panic is logged, the rest of the kernel's batch goes on.
        run("forget", || self.union.forget(inode(node), lookups)).unwrap_or_default();
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let result = attempt("getattr", || self.union.attributes(inode(node)));
        reply::attributes(reply, self.serving.timeout, result);
    }

    fn setattr(
        &self,
        request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        // HANDLE_KILLPRIV_V2: a SETATTR that sets nothing means "drop the privileges". `fuser` hides the flag that says the
        // same of a truncation.
        let nothing = mode.is_none() && uid.is_none() && gid.is_none() && size.is_none();
        let nothing = nothing && atime.is_none() && mtime.is_none() && ctime.is_none();
        let chown = uid.is_some() || gid.is_some();
        let truncation = size.is_some() && kills_privileges(request);
        let changes = Changes {
            mode,
            uid,
            gid,
            size,
            atime: time_change(atime),
            mtime: time_change(mtime),
            kill_privileges: nothing || chown || truncation,
        };
        let (caller, timeout) = (caller(request, 0), self.serving.timeout);
        let job = move |union: &Union| {
            let result = attempt("setattr", || union.set_attributes(&caller, inode(node), &changes));
            reply::attributes(reply, timeout, result);
        };
        match size {
            // Nothing of the old data is kept, so none is copied.
            Some(0) => job(&self.union),
            _ => self.change(inode(node), job),
        }
    }

    fn readlink(&self, _: &Request, node: INodeNo, reply: ReplyData) {
        reply::data(reply, attempt("readlink", || self.union.read_link(inode(node))));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        let (caller, device) = (caller(request, umask), decode_device(device));
        let result = attempt("mknod", || self.union.make_node(&caller, inode(parent), name, mode, device));
        reply::entry(reply, self.serving.timeout, result);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let caller = caller(request, umask);
        let result = attempt("mkdir", || self.union.make_dir(&caller, inode(parent), name, mode));
        reply::entry(reply, self.serving.timeout, result);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply::empty(reply, attempt("unlink", || self.union.remove_file(inode(parent), name)));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply::empty(reply, attempt("rmdir", || self.union.remove_dir(inode(parent), name)));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (caller, target) = (caller(request, 0), target.as_os_str());
        let result = attempt("symlink", || self.union.symlink(&caller, inode(parent), name, target));
        reply::entry(reply, self.serving.timeout, result);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let flags = match rename_flags(flags) {
            Ok(flags) => flags,
            Err(error) => return reply.error(errno(error)),
        };
        let (from, to) = (inode(parent), inode(new_parent));
        let moved = attempt("rename", || self.union.rename_copying(from, name, to, new_name, flags, LONG_COPY_BYTES));
        if !matches!(moved, Ok(false)) {
            return reply::empty(reply, moved.map(drop));
        }
        let (union, name, new_name) = (Arc::clone(&self.union), name.to_owned(), new_name.to_owned());
        self.offload.run(move || {
            reply::empty(reply, attempt("rename", || union.rename(from, &name, to, &new_name, flags)));
        });
    }

    fn link(&self, _: &Request, node: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (name, timeout) = (name.to_owned(), self.serving.timeout);
        self.change(inode(node), move |union| {
            let result = attempt("link", || union.link(inode(node), inode(parent), &name));
            reply::entry(reply, timeout, result);
        });
    }

    fn open(&self, request: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if let Some(passthrough) = &self.passthrough {
            return passthrough.open(&self.union, &caller(request, 0), inode(node), flags, reply);
        }
        if !self.union.opens_matter() {
            // The kernel remembers (`FUSE_NO_OPEN_SUPPORT`): from now on neither OPEN nor RELEASE comes.
            return reply.error(Errno::ENOSYS);
        }
        let writable = flags.acc_mode() != OpenAccMode::O_RDONLY;
        let truncate = flags.0 & libc::O_TRUNC != 0;
        let caller = caller(request, 0);
        let result = attempt("open", || self.union.open(&caller, inode(node), writable, truncate));
        reply::opened(reply, result);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let caller = caller(request, umask);
        let result = attempt("create", || self.union.create(&caller, inode(parent), name, mode));
        if let Some(passthrough) = &self.passthrough {
            return passthrough.created(&self.union, result, flags, self.serving.timeout, reply);
        }
        reply::created(reply, self.serving.timeout, result);
    }

    fn read(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        READ_BUFFER.with_borrow_mut(|buffer| {
            let size = size as usize;
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            let buffer = &mut buffer[..size];
            match attempt("read", || self.union.read(inode(node), offset, buffer)) {
                Ok(length) => reply.data(&buffer[..length]),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn write(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let kill = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let write = move |union: &Union, data: &[u8]| {
            let result = attempt("write", || union.write(inode(node), offset, data, kill));
            reply::written(reply, result);
        };
        // Not `change`: the request's data lives in the request thread's buffer and is cloned only to leave it.
        if !self.copies_long(inode(node)) {
            return write(&self.union, data);
        }
        let (union, data) = (Arc::clone(&self.union), data.to_vec());
        self.offload.run(move || write(&union, &data));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Nothing is held back until close(2). The kernel remembers and saves one request per close from now on.
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        if let Some(passthrough) = &self.passthrough {
            return passthrough.release(&self.union, inode(node), handle, reply);
        }
        reply::empty(reply, run("release", || self.union.release(inode(node))));
    }

    fn fsync(&self, _: &Request, node: INodeNo, _: FileHandle, data_only: bool, reply: ReplyEmpty) {
        if !self.serving.sync {
            return reply.error(Errno::ENOSYS);
        }
        reply::empty(reply, attempt("fsync", || self.union.sync_file(inode(node), data_only)));
    }

    fn opendir(&self, _: &Request, node: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let handle = self.opened_dirs.fetch_add(1, Ordering::Relaxed) + 1;
        reply::opened_dir(reply, handle, attempt("opendir", || self.union.open_dir(inode(node))));
    }

    fn readdir(&self, _: &Request, node: INodeNo, _: FileHandle, offset: u64, reply: ReplyDirectory) {
        directory::read(&self.union, inode(node), offset, reply);
    }

    fn readdirplus(&self, _: &Request, node: INodeNo, _: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        directory::read_plus(&self.union, inode(node), offset, self.serving.timeout, reply);
    }

    fn releasedir(&self, _: &Request, node: INodeNo, _: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        reply::empty(reply, run("releasedir", || self.union.close_dir(inode(node))));
    }

    fn fsyncdir(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        if !self.serving.sync {
            return reply.error(Errno::ENOSYS);
        }
        reply::empty(reply, attempt("fsyncdir", || self.union.sync_dir(inode(node))));
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match attempt("statfs", || self.union.statfs()) {
            Ok(stat) => reply.statfs(
                stat.blocks,
                stat.bfree,
                stat.bavail,
                stat.files,
                stat.ffree,
                stat.bsize,
                stat.name_max,
                stat.frsize,
            ),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn setxattr(
        &self,
        request: &Request,
        node: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        if !self.serving.xattrs {
            return reply.error(Errno::ENOSYS);
        }
        let (caller, name, value) = (caller(request, 0), name.to_owned(), value.to_vec());
        self.change(inode(node), move |union| {
            let result = attempt("setxattr", || union.set_xattr(&caller, inode(node), &name, &value, flags));
            reply::empty(reply, result);
        });
    }

    fn getxattr(&self, _: &Request, node: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if !self.serving.xattrs {
            return reply.error(Errno::ENOSYS);
        }
        reply::xattr(reply, size, attempt("getxattr", || self.union.xattr(inode(node), name)));
    }

    fn listxattr(&self, _: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        if !self.serving.xattrs {
            return reply.error(Errno::ENOSYS);
        }
        reply::xattr(reply, size, attempt("listxattr", || self.union.list_xattrs(inode(node))));
    }

    fn removexattr(&self, _: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if !self.serving.xattrs {
            return reply.error(Errno::ENOSYS);
        }
        let name = name.to_owned();
        self.change(inode(node), move |union| {
            reply::empty(reply, attempt("removexattr", || union.remove_xattr(inode(node), &name)));
        });
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        // The kernel checks by itself: default_permissions is always on.
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        command: u32,
        input: &[u8],
        out_size: u32,
        reply: ReplyIoctl,
    ) {
        match ioctl::decode(command, input) {
            Err(error) => reply.error(errno(error)),
            // isatty(3) of every Python open() comes here.
            Ok(None) => reply.error(Errno::ENOTTY),
            Ok(Some(Command::Flags)) => {
                let result = attempt("getflags", || self.union.inode_flags(inode(node)));
                reply::ioctl(reply, out_size, result.map(ioctl::flags));
            }
            Ok(Some(Command::ExtendedFlags)) => {
                let result = attempt("getflags", || self.union.inode_flags(inode(node)));
                reply::ioctl(reply, out_size, result.map(ioctl::extended_flags));
            }
            Ok(Some(Command::SetFlags(flags))) => self.change(inode(node), move |union| {
                let result = attempt("setflags", || union.set_inode_flags(inode(node), flags));
                reply::ioctl(reply, 0, result.map(|()| Vec::new()));
            }),
        }
    }

    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        // Regular files are always ready; the kernel remembers.
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        request: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let kill = kills_privileges(request);
        self.change(inode(node), move |union| {
            let result = attempt("fallocate", || union.allocate(inode(node), mode, offset, length, kill));
            reply::empty(reply, result);
        });
    }

    fn lseek(&self, _: &Request, node: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        reply::offset(reply, attempt("lseek", || self.union.seek(inode(node), offset, whence)));
    }

    fn copy_file_range(
        &self,
        _: &Request,
        from: INodeNo,
        _: FileHandle,
        from_offset: u64,
        to: INodeNo,
        _: FileHandle,
        to_offset: u64,
        length: u64,
        flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        if flags.bits() != 0 {
            return reply.error(errno(Error::InvalidArgument));
        }
        let length = length.min(COPY_RANGE_MAX);
        self.change(inode(to), move |union| {
            let result =
                attempt("copy_file_range", || union.copy_range(inode(from), from_offset, inode(to), to_offset, length));
            reply::written(reply, result);
        });
    }
}
