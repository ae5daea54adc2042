//! Between the union's words and the wire's.
//!
//! Owns the translation of attributes, times, device numbers, kinds and flags. Must not know requests. Invariant: every
//! translation is total, and times before 1970 and large device numbers survive both ways.

use crate::error::{Error, Result};
use crate::union::{Attributes, Caller, InodeNumber, Kind, RenameFlags, TimeChange, Timestamp};
use fuser::{FileAttr, FileType, INodeNo, Request, TimeOrNow};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Attributes for a reply that introduces an inode: there `fuser` takes the number for the node id as well.
pub(super) fn entry_attributes(attributes: &Attributes) -> FileAttr {
    file_attributes(attributes, attributes.number.0)
}

/// Attributes for GETATTR and SETATTR, which carry the `st_ino` that stat(2) shows. They differ for the root only, whose
/// node id is 1 by protocol.
pub(super) fn stat_attributes(attributes: &Attributes) -> FileAttr {
    file_attributes(attributes, attributes.st_ino)
}

fn file_attributes(attributes: &Attributes, number: u64) -> FileAttr {
    FileAttr {
        ino: INodeNo(number),
        size: attributes.size,
        blocks: attributes.blocks,
        atime: system_time(attributes.atime),
        mtime: system_time(attributes.mtime),
        ctime: system_time(attributes.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(Kind::from_mode(attributes.mode)),
        perm: (attributes.mode & 0o7777) as u16,
        nlink: attributes.nlink,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: encode_device(attributes.rdev),
        blksize: attributes.blksize,
        flags: 0,
    }
}

/// The entry that tells the kernel to remember that a name does not exist: node id 0.
pub(super) fn negative_entry() -> FileAttr {
    unnumbered_entry(0, Kind::Regular)
}

/// A READDIRPLUS entry of which the kernel uses the number and the kind only: `.` and `..`.
pub(super) fn unnumbered_entry(number: u64, kind: Kind) -> FileAttr {
    FileAttr {
        ino: INodeNo(number),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: file_type(kind),
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// The wire's word for a kind of file.
pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Regular => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

/// A time for a reply. Times that `SystemTime` cannot hold do not occur: it holds every `i64` of seconds.
fn system_time(time: Timestamp) -> SystemTime {
    let fraction = Duration::from_nanos(u64::from(time.nanoseconds));
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let seconds = if time.seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    seconds.and_then(|seconds| seconds.checked_add(fraction)).unwrap_or(UNIX_EPOCH)
}

/// A time from a SETATTR. `fuser` 0.18 hands `-1.25 s`, on the wire seconds -2 and nanoseconds 750,000,000, out as
/// `1970 - 2.75 s`: it subtracts the nanoseconds. Undone here; both halves are still there.
fn timestamp(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timestamp { seconds: after.as_secs() as i64, nanoseconds: after.subsec_nanos() },
        Err(before) => {
            let before = before.duration();
            Timestamp { seconds: 0i64.saturating_sub_unsigned(before.as_secs()), nanoseconds: before.subsec_nanos() }
        }
    }
}

/// What a SETATTR says of one of the times.
pub(super) fn time_change(time: Option<TimeOrNow>) -> TimeChange {
    match time {
        None => TimeChange::Keep,
        Some(TimeOrNow::Now) => TimeChange::Now,
        Some(TimeOrNow::SpecificTime(time)) => TimeChange::At(timestamp(time)),
    }
}

/// The kernel's 32-bit device number, see `new_encode_dev` in include/linux/kdev_t.h: 12 bits of major, 20 of minor.
pub(super) fn encode_device(device: u64) -> u32 {
    let (major, minor) = (libc::major(device), libc::minor(device));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The inverse of `encode_device`.
pub(super) fn decode_device(device: u32) -> u64 {
    let major = (device >> 8) & 0xfff;
    let minor = (device & 0xff) | ((device >> 12) & 0xf_ff00);
    libc::makedev(major, minor)
}

/// The flags of a RENAME. RENAME_WHITEOUT is for layers, not for users of the union.
pub(super) fn rename_flags(flags: fuser::RenameFlags) -> Result<RenameFlags> {
    let known = fuser::RenameFlags::RENAME_NOREPLACE | fuser::RenameFlags::RENAME_EXCHANGE;
    if !known.contains(flags) {
        return Err(Error::InvalidArgument);
    }
    Ok(RenameFlags {
        no_replace: flags.contains(fuser::RenameFlags::RENAME_NOREPLACE),
        exchange: flags.contains(fuser::RenameFlags::RENAME_EXCHANGE),
    })
}

/// Who asks.
pub(super) fn caller(request: &Request, umask: u32) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid(), umask }
}

/// Whether a change of a file's data by this caller takes its set-id bits and capabilities away. The kernel would ask for
/// CAP_FSETID, which a request does not tell.
pub(super) fn kills_privileges(request: &Request) -> bool {
    request.uid() != 0
}

/// The union's inode number of a node id.
pub(super) fn inode(node: INodeNo) -> InodeNumber {
    InodeNumber(node.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn device_numbers_survive_the_wire(major in 0u32..1 << 12, minor in 0u32..1 << 20) {
            let device = libc::makedev(major, minor);
            prop_assert_eq!(decode_device(encode_device(device)), device);
        }

        #[test]
        fn replied_times_are_the_true_instants(seconds in -1_000_000_000_000i64..1_000_000_000_000, nanoseconds in 0u32..1_000_000_000) {
            let expected = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
            let time = system_time(Timestamp { seconds, nanoseconds });
            let found = match time.duration_since(UNIX_EPOCH) {
                Ok(after) => after.as_nanos() as i128,
                Err(before) => -(before.duration().as_nanos() as i128),
            };
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn requested_times_before_1970_are_taken_as_sent(seconds in 1u64..1_000_000_000_000, nanoseconds in 0u32..1_000_000_000) {
            // What fuser 0.18 makes of (-seconds, nanoseconds).
            let garbled = UNIX_EPOCH - Duration::new(seconds, nanoseconds);
            prop_assert_eq!(timestamp(garbled), Timestamp { seconds: -(seconds as i64), nanoseconds });
        }
    }
}
