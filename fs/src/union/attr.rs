//! Attributes of files, and their changes.
//!
//! Owns the way from a backing file's attributes to what a user sees, and back. Must not know names. Invariant: a change
//! happens to a file of the upper layer only.

use super::copy_up::Amount;
use super::inode::{Inode, InodeNumber, Kind};
use super::{Attributes, Caller, Changes, Union};
use crate::error::{Error, Result};
use crate::layer::{OverrideStat, Upper};
use crate::sys::open::Access;
use crate::sys::stat::{Stat, TimeChange};
use crate::sys::{copy, open, stat, xattr};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The attribute that file capabilities live in; see capabilities(7).
pub(super) const CAPABILITY: &str = "security.capability";

impl Union {
    /// Attributes of an inode.
    pub fn attributes(&self, inode: InodeNumber) -> Result<Attributes> {
        let inode = self.inode(inode)?;
        self.attributes_of(&inode, None)
    }

    /// What a user sees of an inode; `known` are its backing file's attributes where they were just read.
    pub(super) fn attributes_of(&self, inode: &Arc<Inode>, known: Option<Stat>) -> Result<Attributes> {
        let stat = match known {
            Some(stat) => stat,
            None => self.backing_stat(inode)?,
        };
        let (uid, gid) = self.ids.shown(stat.uid, stat.gid);
        let root = inode.number == InodeNumber::ROOT;
        Ok(Attributes {
            number: inode.number,
            st_ino: if root { self.root_ino } else { inode.number.0 },
            mode: stat.mode,
            nlink: self.link_count(inode, &stat),
            uid,
            gid,
            rdev: stat.rdev,
            size: stat.size,
            blocks: stat.blocks,
            blksize: stat.blksize,
            atime: stat.atime,
            mtime: stat.mtime,
            ctime: stat.ctime,
            unwatched: inode.unwatched.load(Ordering::SeqCst),
        })
    }

    fn link_count(&self, inode: &Inode, stat: &Stat) -> u32 {
        let state = inode.state.read();
        if state.removed {
            return 0;
        }
        if inode.is_dir() {
            let parts = inode.lower_parts().len() + usize::from(state.upper.is_some());
            // 1 says "not counted" to find(1) and fts(3): counting would mean listing every layer.
            return if self.static_nlink || parts > 1 { 1 } else { stat.nlink };
        }
        stat.nlink.saturating_add_signed(state.nlink_delta)
    }

    /// The target of a symbolic link.
    pub fn read_link(&self, inode: InodeNumber) -> Result<Vec<u8>> {
        let inode = self.inode(inode)?;
        match inode.kind {
            Kind::Symlink => match self.index_of(&inode).and_then(|(index, node)| index.link_target(node)) {
                Some(target) => Ok(target.to_vec()),
                None => open::read_link_fd(self.path_fd(&inode)?.as_fd()),
            },
            _ => Err(Error::InvalidArgument),
        }
    }

    /// Changes attributes; returns the new ones.
    pub fn set_attributes(&self, caller: &Caller, inode: InodeNumber, changes: &Changes) -> Result<Attributes> {
        let inode = self.inode(inode)?;
        let _changing = self.changing(&inode);
        self.stack.upper()?;
        if let Some(size) = changes.size {
            self.set_size(&inode, size)?;
        }
        if changes.touches_metadata() {
            self.copy_up(&inode, Amount::Whole)?;
            let _children = inode.is_dir().then(|| inode.children.write());
            self.change_metadata(caller, &inode, changes)?;
        } else if changes.kill_privileges && inode.in_upper() {
            self.drop_privileges(&inode, self.path_fd(&inode)?.as_fd())?;
        } else if changes.kill_privileges && self.has_privileges(&inode)? {
            self.copy_up(&inode, Amount::Whole)?;
            self.drop_privileges(&inode, self.path_fd(&inode)?.as_fd())?;
        }
        self.attributes_of(&inode, None)
    }

    fn set_size(&self, inode: &Arc<Inode>, size: u64) -> Result<()> {
        match inode.kind {
            Kind::Regular => {}
            Kind::Directory => return Err(Error::IsDirectory),
            _ => return Err(Error::InvalidArgument),
        }
        if i64::try_from(size).is_err() {
            return Err(Error::TooLarge);
        }
        if self.copy_up(inode, Amount::Cut(size))? {
            return Ok(());
        }
        let fd = self.data_fd(inode, Access::ReadWrite)?;
        copy::truncate(fd.as_fd(), size)
    }

    fn change_metadata(&self, caller: &Caller, inode: &Arc<Inode>, changes: &Changes) -> Result<()> {
        let upper = self.stack.upper()?;
        let fd = self.path_fd(inode)?;
        let owner = changes.uid.is_some() || changes.gid.is_some() || changes.kill_privileges;
        match changes.mode {
            None if !owner => {}
            // chmod(2) alone: what the file shows now makes no difference.
            Some(mode) if !owner && upper.override_stat() == OverrideStat::Off && inode.kind != Kind::Symlink => {
                self.ready_for_mode(upper, inode, fd.as_fd(), mode)?;
                stat::set_mode(fd.as_fd(), mode)?;
            }
            _ => self.change_owner_and_mode(upper, inode, fd.as_fd(), changes)?,
        }
        if (changes.atime, changes.mtime) != (TimeChange::Keep, TimeChange::Keep) {
            inode.state.write().names_mtime = None;
            stat::set_times(fd.as_fd(), changes.atime, changes.mtime)?;
        }
        tracing::trace!(?caller, inode = inode.number.0, "attributes changed");
        Ok(())
    }

    fn change_owner_and_mode(
        &self,
        upper: &Upper,
        inode: &Arc<Inode>,
        fd: BorrowedFd<'_>,
        changes: &Changes,
    ) -> Result<()> {
        let current = upper.layer().stat_fd(fd)?;
        let uid = changes.uid.map(|uid| self.ids.stored_uid(uid)).transpose()?.flatten();
        let gid = changes.gid.map(|gid| self.ids.stored_gid(gid)).transpose()?.flatten();
        let mut mode = changes.mode;
        if changes.kill_privileges && mode.is_none() {
            mode = without_privileges(&current);
            remove_capability(fd, upper.override_stat())?;
        }
        if let Some(mode) = mode {
            self.ready_for_mode(upper, inode, fd, mode)?;
        }
        upper.set_owner_and_mode(fd, &current, (uid, gid), mode)
    }

    /// Opens and keeps what the new mode of a file would forbid to open or read later.
    fn ready_for_mode(&self, upper: &Upper, inode: &Arc<Inode>, fd: BorrowedFd<'_>, mode: u32) -> Result<()> {
        self.hold_before(inode, mode)?;
        self.keep_marks_before(upper, inode, fd, mode)
    }

    /// Keeps what the marks of a file say where it can be read when the new mode denies reading the file.
    fn keep_marks_before(&self, upper: &Upper, inode: &Inode, fd: BorrowedFd<'_>, mode: u32) -> Result<()> {
        let needless = self.privilege.overrides_modes || mode & 0o400 != 0 || inode.is_dir();
        let Some(origins) = self.origins.as_ref().filter(|_| !needless) else { return Ok(()) };
        origins.keep_readable(upper, fd, &stat::stat_fd(fd)?)?;
        let state = inode.state.read();
        let (key, delta) = (state.link_key.clone(), state.nlink_delta);
        drop(state);
        key.map_or(Ok(()), |key| self.links.keep_readable(upper, &key, delta))
    }

    /// Whether a write by somebody without privilege would change the mode or the capabilities.
    fn has_privileges(&self, inode: &Arc<Inode>) -> Result<bool> {
        let fd = self.path_fd(inode)?;
        let current = self.layer_of(inode)?.stat_fd(fd.as_fd())?;
        Ok(without_privileges(&current).is_some() || xattr::value(fd.as_fd(), OsStr::new(CAPABILITY))?.is_some())
    }

    /// Drops set-user-id, set-group-id and file capabilities, as the kernel does when somebody without privilege writes.
    pub(super) fn drop_privileges(&self, inode: &Arc<Inode>, fd: BorrowedFd<'_>) -> Result<()> {
        if inode.kind != Kind::Regular {
            return Ok(());
        }
        let upper = self.stack.upper()?;
        let current = upper.layer().stat_fd(fd)?;
        remove_capability(fd, upper.override_stat())?;
        match without_privileges(&current) {
            Some(mode) => upper.set_owner_and_mode(fd, &current, (None, None), Some(mode)),
            None => Ok(()),
        }
    }

    /// Free space and counts of the filesystem that is written to.
    pub fn statfs(&self) -> Result<super::FilesystemStat> {
        let layer = self.stack.layers().next().ok_or(Error::NoSuchInode)?;
        let found = stat::stat_filesystem(layer.root())?;
        Ok(super::FilesystemStat {
            blocks: found.f_blocks,
            bfree: found.f_bfree,
            bavail: found.f_bavail,
            files: found.f_files,
            ffree: found.f_ffree,
            bsize: u32::try_from(found.f_bsize).unwrap_or(u32::MAX),
            frsize: u32::try_from(found.f_frsize).unwrap_or(u32::MAX),
            name_max: super::lookup::NAME_BYTES_MAX as u32,
        })
    }

    /// The `FS_*_FL` flags of a file or directory; see ioctl_iflags(2).
    pub fn inode_flags(&self, inode: InodeNumber) -> Result<u32> {
        let inode = self.inode(inode)?;
        self.flags_fd(&inode, Access::Read, stat::inode_flags)
    }

    /// Sets the `FS_*_FL` flags of a file or directory.
    pub fn set_inode_flags(&self, inode: InodeNumber, flags: u32) -> Result<()> {
        let inode = self.inode(inode)?;
        self.copy_up(&inode, Amount::Whole)?;
        let _changing = self.changing(&inode);
        self.flags_fd(&inode, Access::Read, |fd| stat::set_inode_flags(fd, flags))
    }

    fn flags_fd<T>(&self, inode: &Arc<Inode>, access: Access, act: impl Fn(BorrowedFd<'_>) -> Result<T>) -> Result<T> {
        match inode.kind {
            Kind::Directory => act(self.path_fd(inode)?.as_fd()),
            Kind::Regular => act(self.data_fd(inode, access)?.as_fd()),
            _ => Err(Error::NotSupported),
        }
    }
}

impl Changes {
    fn touches_metadata(&self) -> bool {
        self.mode.is_some()
            || self.uid.is_some()
            || self.gid.is_some()
            || self.atime != TimeChange::Keep
            || self.mtime != TimeChange::Keep
    }
}

/// The mode that is left when privileges are dropped; `None` where there are none. Set-group-id without group execution is
/// mandatory locking, not a privilege (inode(7)).
fn without_privileges(stat: &Stat) -> Option<u32> {
    if stat.format() != libc::S_IFREG {
        return None;
    }
    let mut mode = stat.mode & !libc::S_ISUID;
    if mode & libc::S_IXGRP != 0 {
        mode &= !libc::S_ISGID;
    }
    (mode != stat.mode).then_some(mode)
}

fn remove_capability(fd: BorrowedFd<'_>, override_stat: OverrideStat) -> Result<()> {
    let stored = match override_stat {
        OverrideStat::Off => None,
        _ => crate::layer::store_security(OsStr::new(CAPABILITY)),
    };
    let name = stored.as_deref().unwrap_or(OsStr::new(CAPABILITY));
    if xattr::value(fd, name)?.is_none() {
        return Ok(());
    }
    match xattr::remove(fd, name) {
        Err(error) if error.is(libc::ENODATA) => Ok(()),
        other => other,
    }
}
