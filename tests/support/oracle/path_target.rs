//! Operations on a mounted path, by system calls. It owns the handles; it decides nothing. Invariant: a path is walked with
//! RESOLVE_NO_SYMLINKS, and its last component is never followed.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, Uid,
    XattrFlags,
};

use super::op::{Op, RenameMode, SLOTS};
use super::{Errno, Reply, Target};
use crate::tree::Tree;
use crate::{KernelOverlay, LaminaMount, machine};

/// A mount that can be taken away and brought back.
pub trait Remount {
    /// The mountpoint.
    fn at(&self) -> &Path;
    /// Unmounts and mounts again.
    fn again(&mut self);
    /// The whole tree as it shows now.
    fn tree(&self) -> Tree {
        Tree::read(self.at())
    }
}

impl Remount for LaminaMount {
    fn at(&self) -> &Path {
        self.path()
    }
    fn again(&mut self) {
        self.remount();
    }
}

impl Remount for KernelOverlay {
    fn tree(&self) -> Tree {
        Tree::read_despite_d_ino(self.path())
    }

    fn at(&self) -> &Path {
        self.path()
    }
    fn again(&mut self) {
        self.remount();
    }
}

/// A mount under test, with the handles open on it.
pub struct PathTarget<M> {
    // Handles before the mount: a field is dropped in the order written here, and an open file keeps a mount busy.
    handles: [Option<File>; SLOTS],
    mount: M,
}

/// The parent directory and the name in it.
struct Spot<'path> {
    dir: OwnedFd,
    name: &'path str,
}

impl Spot<'_> {
    /// A path for the calls that take no directory descriptor.
    fn path(&self) -> String {
        format!("/proc/self/fd/{}/{}", self.dir.as_raw_fd(), self.name)
    }

    fn open(&self, flags: OFlags, mode: u32) -> Result<File, rustix::io::Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.dir, self.name, flags, Mode::from_raw_mode(mode)).map(File::from)
    }
}

impl<M: Remount> PathTarget<M> {
    /// With no handle open.
    pub fn new(mount: M) -> PathTarget<M> {
        PathTarget { handles: [const { None }; SLOTS], mount }
    }

    fn spot<'path>(&self, path: &'path str) -> Result<Spot<'path>, rustix::io::Errno> {
        let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, self.mount.at(), flags, Mode::empty())?;
        let dir = rustix::fs::openat2(
            &root,
            parent,
            flags,
            Mode::empty(),
            ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH,
        )?;
        Ok(Spot { dir, name })
    }

    fn handle(&self, slot: usize) -> &File {
        self.handles[slot].as_ref().expect("the model skips empty slots")
    }

    fn on_data(&mut self, op: &Op) -> std::io::Result<Reply> {
        match *op {
            Op::Create { path, mode } => {
                drop(self.spot(path)?.open(OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY, mode)?)
            }
            Op::Write { path, offset, data } => {
                self.spot(path)?.open(OFlags::WRONLY, 0)?.write_all_at(&data.bytes(), offset)?
            }
            Op::Append { path, data } => {
                use std::io::Write;
                self.spot(path)?.open(OFlags::WRONLY | OFlags::APPEND, 0)?.write_all(&data.bytes())?;
            }
            Op::Truncate { path, size } => {
                nix::unistd::truncate(self.spot(path)?.path().as_str(), i64::try_from(size).unwrap_or(i64::MAX))?
            }
            Op::OpenTruncate { path } => drop(self.spot(path)?.open(OFlags::WRONLY | OFlags::TRUNC, 0)?),
            Op::Read { path } => return read_at(&self.spot(path)?.open(OFlags::RDONLY, 0)?, 0, usize::MAX),
            Op::Open { slot, path, writable } => {
                let flags = if writable { OFlags::RDWR } else { OFlags::RDONLY };
                self.handles[slot] = Some(self.spot(path)?.open(flags, 0)?);
            }
            Op::ReadHandle { slot, offset, length } => return read_at(self.handle(slot), offset, length),
            Op::WriteHandle { slot, offset, data } => self.handle(slot).write_all_at(&data.bytes(), offset)?,
            Op::TruncateHandle { slot, size } => self.handle(slot).set_len(size)?,
            Op::ChmodHandle { slot, mode } => {
                self.handle(slot).set_permissions(std::fs::Permissions::from_mode(mode))?
            }
            Op::StatHandle { slot } => {
                let stat = self.handle(slot).metadata()?;
                return Ok(Reply::Stat { size: stat.size(), mode: stat.mode() & 0o7777, nlink: Some(stat.nlink()) });
            }
            Op::Close { slot } => drop(self.handles[slot].take()),
            _ => unreachable!("names and attributes are handled by on_names"),
        }
        Ok(Reply::Done)
    }

    fn on_names(&mut self, op: &Op) -> rustix::io::Result<Reply> {
        match *op {
            Op::Chmod { path, mode } => {
                let spot = self.spot(path)?;
                rustix::fs::chmodat(&spot.dir, spot.name, Mode::from_raw_mode(mode), AtFlags::empty())?;
            }
            Op::Chown { path, uid, gid } => {
                let spot = self.spot(path)?;
                let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                rustix::fs::chownat(&spot.dir, spot.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Op::SetMtime { path, seconds } => {
                let spot = self.spot(path)?;
                let keep = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
                let times =
                    Timestamps { last_access: keep, last_modification: Timespec { tv_sec: seconds, tv_nsec: 0 } };
                rustix::fs::utimensat(&spot.dir, spot.name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Op::Link { from, to } => {
                let (from, to) = (self.existing(from)?, self.spot(to)?);
                rustix::fs::linkat(&from.dir, from.name, &to.dir, to.name, AtFlags::empty())?;
            }
            Op::Symlink { target, path } => {
                let spot = self.spot(path)?;
                rustix::fs::symlinkat(target, &spot.dir, spot.name)?;
            }
            Op::Rename { from, to, mode } => {
                let (from, to) = (self.spot(from)?, self.spot(to)?);
                rustix::fs::renameat_with(&from.dir, from.name, &to.dir, to.name, rename_flags(mode))?;
            }
            Op::Unlink { path } => self.remove(path, AtFlags::empty())?,
            Op::Rmdir { path } => self.remove(path, AtFlags::REMOVEDIR)?,
            Op::Mkdir { path, mode } => {
                let spot = self.spot(path)?;
                rustix::fs::mkdirat(&spot.dir, spot.name, Mode::from_raw_mode(mode))?;
            }
            Op::Mkfifo { path, mode } => {
                let spot = self.spot(path)?;
                rustix::fs::mknodat(&spot.dir, spot.name, FileType::Fifo, Mode::from_raw_mode(mode), 0)?;
            }
            Op::SetXattr { path, name, value } => {
                rustix::fs::lsetxattr(self.spot(path)?.path(), name, &value.bytes(), XattrFlags::empty())?;
            }
            Op::RemoveXattr { path, name } => rustix::fs::lremovexattr(self.spot(path)?.path(), name)?,
            _ => unreachable!("data and handles are handled by on_data"),
        }
        Ok(Reply::Done)
    }

    /// As linkat(2) itself: the source is looked up before the parent of the new name.
    fn existing<'path>(&self, path: &'path str) -> rustix::io::Result<Spot<'path>> {
        let spot = self.spot(path)?;
        rustix::fs::statat(&spot.dir, spot.name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(spot)
    }

    fn remove(&self, path: &str, flags: AtFlags) -> rustix::io::Result<()> {
        let spot = self.spot(path)?;
        rustix::fs::unlinkat(&spot.dir, spot.name, flags)
    }
}

impl<M: Remount> Target for PathTarget<M> {
    fn apply(&mut self, op: &Op) -> Result<Reply, Errno> {
        use Op::{
            Append, ChmodHandle, Close, Create, Open, OpenTruncate, Read, ReadHandle, StatHandle, Truncate,
            TruncateHandle, Write, WriteHandle,
        };
        match op {
            Create { .. }
            | Write { .. }
            | Append { .. }
            | Truncate { .. }
            | OpenTruncate { .. }
            | Read { .. }
            | Open { .. }
            | ReadHandle { .. }
            | WriteHandle { .. }
            | TruncateHandle { .. }
            | ChmodHandle { .. }
            | StatHandle { .. }
            | Close { .. } => self.on_data(op).map_err(|error| error.raw_os_error().unwrap_or(libc::EIO)),
            _ => self.on_names(op).map_err(rustix::io::Errno::raw_os_error),
        }
    }

    fn tree(&mut self) -> Tree {
        self.mount.tree()
    }

    fn remount(&mut self) {
        self.handles = [const { None }; SLOTS];
        self.mount.again();
    }

    fn drop_caches(&mut self) {
        self.handles.iter().flatten().for_each(machine::drop_pages);
        machine::forget_names(self.mount.at());
    }
}

fn read_at(file: &File, offset: u64, length: usize) -> std::io::Result<Reply> {
    let mut data = vec![0; length.min(1 << 20)];
    let mut filled = 0;
    while filled < data.len() {
        match file.read_at(&mut data[filled..], offset + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    data.truncate(filled);
    Ok(Reply::Data(data))
}

fn rename_flags(mode: RenameMode) -> RenameFlags {
    match mode {
        RenameMode::Plain => RenameFlags::empty(),
        RenameMode::NoReplace => RenameFlags::NOREPLACE,
        RenameMode::Exchange => RenameFlags::EXCHANGE,
    }
}
