//! The data of regular files.
//!
//! Owns opening, reading and writing. Invariant: every call goes from the inode to its current backing; there is no other
//! state behind an open file, so nothing can be stale.

use super::copy_up::Amount;
use super::inode::{Inode, InodeNumber, Kind};
use super::{Caller, Changes, Union};
use crate::error::{Error, Result};
use crate::sys::open::Access;
use crate::sys::{copy, stat};
use std::os::fd::AsFd;
use std::sync::Arc;

impl Union {
    pub(super) fn regular(&self, inode: InodeNumber) -> Result<Arc<Inode>> {
        let inode = self.inode(inode)?;
        match inode.kind {
            Kind::Regular => Ok(inode),
            Kind::Directory => Err(Error::IsDirectory),
            _ => Err(Error::NotRegular),
        }
    }

    /// Whether opening must be told: without privilege, what an open file needs cannot always be opened again later, so a
    /// descriptor is held while it is open. With it, nothing is kept for an open file that it would need an end for.
    pub fn opens_matter(&self) -> bool {
        !self.privilege.overrides_modes
    }

    /// Opens a file; counts an open. Nothing is copied up before something is written.
    pub fn open(&self, caller: &Caller, inode: InodeNumber, writable: bool, truncate: bool) -> Result<()> {
        let file = self.regular(inode)?;
        if writable {
            self.stack.upper()?;
        }
        file.opened();
        let ready = match truncate {
            true => {
                let changes = Changes { size: Some(0), kill_privileges: caller.uid != 0, ..Changes::default() };
                self.set_attributes(caller, inode, &changes).map(drop)
            }
            // A file that cannot be read at all fails here, not at the first read.
            false => self.data_fd(&file, Access::Read).map(drop),
        };
        if ready.is_err() {
            file.closed();
        }
        ready
    }

    /// Closes a file; takes back an open.
    pub fn release(&self, inode: InodeNumber) {
        let Ok(inode) = self.inode(inode) else { return };
        if inode.closed() == 0 {
            let held = inode.state.write().held.take();
            drop(held);
        }
    }

    /// Reads until the buffer is full or the file ends; returns the bytes read.
    pub fn read(&self, inode: InodeNumber, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let inode = self.regular(inode)?;
        let fd = self.data_fd(&inode, Access::Read)?;
        copy::read_at(fd.as_fd(), offset, buffer)
    }

    /// Writes; returns the bytes written, which are fewer only where the disk is full or the file too large.
    pub fn write(&self, inode: InodeNumber, offset: u64, data: &[u8], kill_privileges: bool) -> Result<usize> {
        let inode = self.regular(inode)?;
        self.copy_up(&inode, Amount::Whole)?;
        let _changing = self.changing(&inode);
        let fd = self.data_fd(&inode, Access::ReadWrite)?;
        if kill_privileges {
            self.drop_privileges(&inode, fd.as_fd())?;
        }
        copy::write_at(fd.as_fd(), offset, data)
    }

    /// Writes a file's data to the device; see fsync(2). What lies in a lower layer has nothing to be written.
    pub fn sync_file(&self, inode: InodeNumber, data_only: bool) -> Result<()> {
        let inode = self.inode(inode)?;
        if !self.sync || !inode.in_upper() || inode.kind != Kind::Regular {
            return Ok(());
        }
        stat::sync(self.data_fd(&inode, Access::Read)?.as_fd(), data_only)
    }

    /// Writes a directory's entries to the device.
    pub fn sync_dir(&self, inode: InodeNumber) -> Result<()> {
        let dir = self.dir(inode)?;
        if !self.sync || !dir.in_upper() {
            return Ok(());
        }
        stat::sync(self.upper_dir(&dir)?.as_fd(), false)
    }

    /// Reserves, punches or zeroes a range; see fallocate(2).
    pub fn allocate(
        &self,
        inode: InodeNumber,
        mode: i32,
        offset: u64,
        length: u64,
        kill_privileges: bool,
    ) -> Result<()> {
        let inode = self.regular(inode)?;
        self.copy_up(&inode, Amount::Whole)?;
        let _changing = self.changing(&inode);
        let fd = self.data_fd(&inode, Access::ReadWrite)?;
        if kill_privileges {
            self.drop_privileges(&inode, fd.as_fd())?;
        }
        copy::allocate(fd.as_fd(), mode, offset, length)
    }

    /// Finds data or a hole; `whence` is `SEEK_DATA` or `SEEK_HOLE`, see lseek(2).
    pub fn seek(&self, inode: InodeNumber, offset: i64, whence: i32) -> Result<i64> {
        let inode = self.regular(inode)?;
        let data = match whence {
            libc::SEEK_DATA => true,
            libc::SEEK_HOLE => false,
            _ => return Err(Error::InvalidArgument),
        };
        let offset = u64::try_from(offset).map_err(|_| Error::Os { call: "lseek", errno: libc::ENXIO })?;
        let fd = self.data_fd(&inode, Access::Read)?;
        let found = copy::seek(fd.as_fd(), offset, data)?;
        i64::try_from(found).map_err(|_| Error::TooLarge)
    }

    /// Copies between two files without the data passing through the caller; returns the bytes copied.
    pub fn copy_range(
        &self,
        from: InodeNumber,
        from_offset: u64,
        to: InodeNumber,
        to_offset: u64,
        length: u64,
    ) -> Result<usize> {
        let (from, to) = (self.regular(from)?, self.regular(to)?);
        self.copy_up(&to, Amount::Whole)?;
        let _changing = self.changing(&to);
        let target = self.data_fd(&to, Access::ReadWrite)?;
        let source = self.data_fd(&from, Access::Read)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        copy::copy_range(source.as_fd(), from_offset, target.as_fd(), to_offset, length)
    }
}
