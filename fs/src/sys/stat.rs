//! Attributes of a file and their changes.
//!
//! Invariant: works on a name below a descriptor or on any descriptor, `O_PATH` included, and never follows a link.

use super::open::proc_path;
use super::{calls, fault, os};
use crate::error::Result;
use rustix::fs::{AtFlags, CWD, Gid, Mode, StatxAttributes, StatxFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::BorrowedFd;

/// A point in time as stat(2) gives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970, negative before it.
    pub seconds: i64,
    /// 0..1,000,000,000
    pub nanoseconds: u32,
}

/// What the kernel says of one file. Sizes in bytes, `blocks` of 512 bytes. See statx(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the field names are those of stat(2)")]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    pub blocks: u64,
    pub blksize: u32,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    /// Creation time; zero where the filesystem keeps none.
    pub btime: Timestamp,
}

impl Stat {
    /// The type bits of the mode, `S_IFMT`.
    pub fn format(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.format() == libc::S_IFDIR
    }

    /// Whether this is a character device 0:0, the ordinary whiteout of overlayfs.
    pub fn is_whiteout_device(&self) -> bool {
        self.format() == libc::S_IFCHR && self.rdev == 0
    }
}

/// Attributes of a name, `None` where it does not exist.
pub fn stat_at(parent: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Stat>> {
    match statx(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Ok(None),
        Err(errno) => Err(os("statx")(errno)),
    }
}

/// Attributes of the file behind a descriptor.
pub fn stat_fd(fd: BorrowedFd<'_>) -> Result<Stat> {
    statx(fd, OsStr::new(""), AtFlags::EMPTY_PATH).map_err(os("statx"))
}

fn statx(fd: BorrowedFd<'_>, name: &OsStr, flags: AtFlags) -> Result<Stat, Errno> {
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    calls::count(1);
    let raw = rustix::fs::statx(fd, name, flags | AtFlags::NO_AUTOMOUNT, mask)?;
    let time = |t: rustix::fs::StatxTimestamp| Timestamp { seconds: t.tv_sec, nanoseconds: t.tv_nsec };
    Ok(Stat {
        dev: rustix::fs::makedev(raw.stx_dev_major, raw.stx_dev_minor),
        ino: raw.stx_ino,
        mode: u32::from(raw.stx_mode),
        nlink: raw.stx_nlink,
        uid: raw.stx_uid,
        gid: raw.stx_gid,
        rdev: rustix::fs::makedev(raw.stx_rdev_major, raw.stx_rdev_minor),
        size: raw.stx_size,
        blocks: raw.stx_blocks,
        blksize: raw.stx_blksize,
        atime: time(raw.stx_atime),
        mtime: time(raw.stx_mtime),
        ctime: time(raw.stx_ctime),
        btime: time(raw.stx_btime),
    })
}

/// What is said of a file besides its mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Restrictions {
    /// It is a regular file.
    pub regular: bool,
    /// Nobody may write to it. See chattr(1), `i`.
    pub immutable: bool,
    /// It may be written to at its end only. See chattr(1), `a`.
    pub append_only: bool,
}

/// What forbids writing to the file behind a descriptor, whatever its mode. See statx(2), `stx_attributes`.
pub fn restrictions(fd: BorrowedFd<'_>) -> Result<Restrictions> {
    calls::count(1);
    let found = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE).map_err(os("statx"))?;
    Ok(Restrictions {
        regular: u32::from(found.stx_mode) & libc::S_IFMT == libc::S_IFREG,
        immutable: found.stx_attributes.contains(StatxAttributes::IMMUTABLE),
        append_only: found.stx_attributes.contains(StatxAttributes::APPEND),
    })
}

/// Changes the permission bits. Symbolic links have none: `EOPNOTSUPP`.
pub fn set_mode(fd: BorrowedFd<'_>, mode: u32) -> Result<()> {
    fault::check("chmod")?;
    let mode = Mode::from_raw_mode(mode & 0o7777);
    calls::count(1);
    match rustix::fs::fchmod(fd, mode) {
        // fchmod(2) takes no O_PATH descriptor, and fchmodat2(2) is younger than our oldest kernel.
        Err(Errno::BADF) => {
            calls::count(1);
            rustix::fs::chmodat(CWD, proc_path(fd), mode, AtFlags::empty()).map_err(os("chmod"))
        }
        other => other.map_err(os("chmod")),
    }
}

/// Changes owner, group or both; `None` keeps. See fchownat(2), `AT_EMPTY_PATH`.
pub fn set_owner(fd: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    fault::check("chown")?;
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    calls::count(1);
    rustix::fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH).map_err(os("chown"))
}

/// How one time stamp changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TimeChange {
    /// Stays as it is.
    #[default]
    Keep,
    /// The clock of the machine.
    Now,
    /// This time.
    At(Timestamp),
}

/// Changes access and modification time. See utimensat(2).
pub fn set_times(fd: BorrowedFd<'_>, atime: TimeChange, mtime: TimeChange) -> Result<()> {
    fault::check("utimens")?;
    let raw = |change| match change {
        TimeChange::Keep => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        TimeChange::Now => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        TimeChange::At(at) => Timespec { tv_sec: at.seconds, tv_nsec: i64::from(at.nanoseconds) },
    };
    let times = Timestamps { last_access: raw(atime), last_modification: raw(mtime) };
    calls::count(1);
    rustix::fs::utimensat(fd, "", &times, AtFlags::EMPTY_PATH).map_err(os("utimensat"))
}

/// Free space and counts. See statvfs(3).
pub fn stat_filesystem(fd: BorrowedFd<'_>) -> Result<rustix::fs::StatVfs> {
    calls::count(1);
    rustix::fs::fstatvfs(fd).map_err(os("fstatvfs"))
}

/// Filesystems that may lie on another one: `OVERLAYFS_SUPER_MAGIC`, `ECRYPTFS_SUPER_MAGIC`, `FUSE_SUPER_MAGIC` of
/// include/uapi/linux/magic.h.
const STACKED: [u32; 3] = [0x794c_7630, 0xf15f, 0x6573_5546];

/// Whether the filesystem behind a descriptor may lie on another one. See statfs(2).
pub fn is_stacked(fd: BorrowedFd<'_>) -> Result<bool> {
    calls::count(1);
    let found = rustix::fs::fstatfs(fd).map_err(os("fstatfs"))?;
    // The field is as wide as the architecture likes; the magic has 32 bits.
    Ok(STACKED.contains(&(found.f_type as u32)))
}

/// The `FS_*_FL` flags of a file. See ioctl_iflags(2).
pub fn inode_flags(fd: BorrowedFd<'_>) -> Result<u32> {
    calls::count(1);
    rustix::fs::ioctl_getflags(fd).map(|flags| flags.bits()).map_err(os("ioctl"))
}

/// Sets the `FS_*_FL` flags of a file. See ioctl_iflags(2).
pub fn set_inode_flags(fd: BorrowedFd<'_>, flags: u32) -> Result<()> {
    fault::check("setflags")?;
    calls::count(1);
    rustix::fs::ioctl_setflags(fd, rustix::fs::IFlags::from_bits_retain(flags)).map_err(os("ioctl"))
}

/// Writes a file's data, and its attributes where asked, to the device.
pub fn sync(fd: BorrowedFd<'_>, data_only: bool) -> Result<()> {
    fault::check("fsync")?;
    calls::count(1);
    match data_only {
        true => rustix::fs::fdatasync(fd).map_err(os("fdatasync")),
        false => rustix::fs::fsync(fd).map_err(os("fsync")),
    }
}

/// Writes everything of the filesystem behind a descriptor to the device. See syncfs(2).
pub fn sync_filesystem(fd: BorrowedFd<'_>) -> Result<()> {
    calls::count(1);
    rustix::fs::syncfs(fd).map_err(os("syncfs"))
}
