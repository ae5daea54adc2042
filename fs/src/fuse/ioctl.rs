//! The ioctls that files answer.
//!
//! Owns their numbers and their bytes. Must not know what the flags do. Invariant: every other ioctl is ENOTTY, as it is for
//! a file that is no device.

use crate::error::{Error, Result};

/// `FS_IOC_GETFLAGS` and `FS_IOC_SETFLAGS`, see ioctl_iflags(2): the header says `long`, the kernel and 32-bit callers `int`.
const GET_FLAGS: [u32; 2] = [0x8008_6601, 0x8004_6601];
const SET_FLAGS: [u32; 2] = [0x4008_6602, 0x4004_6602];

/// `FS_IOC_FSGETXATTR`, see ioctl_xfs_fsgetxattr(2). The kernel asks for it before each `FS_IOC_SETFLAGS`.
const GET_EXTENDED: u32 = 0x801c_581f;

/// Bytes of `struct fsxattr`.
const EXTENDED_BYTES: usize = 28;

/// Flags with a word in both languages: `FS_*_FL` and `FS_XFLAG_*` of include/uapi/linux/fs.h.
const FLAGS: [(u32, u32); 7] = [
    (0x0000_0008, 0x0000_0020), // SYNC
    (0x0000_0010, 0x0000_0008), // IMMUTABLE
    (0x0000_0020, 0x0000_0010), // APPEND
    (0x0000_0040, 0x0000_0080), // NODUMP
    (0x0000_0080, 0x0000_0040), // NOATIME
    (0x0200_0000, 0x0000_8000), // DAX
    (0x2000_0000, 0x0000_0200), // PROJINHERIT
];

/// What an ioctl asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// The `FS_*_FL` flags.
    Flags,
    /// The same as `struct fsxattr`.
    ExtendedFlags,
    /// Set these `FS_*_FL` flags.
    SetFlags(u32),
}

/// The request of a number and its argument; `None` is for no file of ours.
pub(super) fn decode(command: u32, argument: &[u8]) -> Result<Option<Command>> {
    match command {
        command if GET_FLAGS.contains(&command) => Ok(Some(Command::Flags)),
        GET_EXTENDED => Ok(Some(Command::ExtendedFlags)),
        command if SET_FLAGS.contains(&command) => {
            let flags = argument.first_chunk().ok_or(Error::InvalidArgument)?;
            Ok(Some(Command::SetFlags(u32::from_ne_bytes(*flags))))
        }
        _ => Ok(None),
    }
}

/// The bytes that answer `Flags`.
pub(super) fn flags(flags: u32) -> Vec<u8> {
    flags.to_ne_bytes().to_vec()
}

/// The bytes that answer `ExtendedFlags`: the first number of the structure. Extent sizes and projects are not shown.
pub(super) fn extended_flags(flags: u32) -> Vec<u8> {
    let extended = FLAGS.iter().filter(|(flag, _)| flags & flag != 0).fold(0, |all, (_, flag)| all | flag);
    let mut answer = vec![0; EXTENDED_BYTES];
    answer[..size_of::<u32>()].copy_from_slice(&u32::to_ne_bytes(extended));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_questions_are_for_no_file_of_ours() {
        assert_eq!(decode(libc::TCGETS as u32, &[]), Ok(None));
    }

    #[test]
    fn short_argument_is_refused() {
        assert_eq!(decode(SET_FLAGS[0], &[1, 2]), Err(Error::InvalidArgument));
        assert_eq!(decode(SET_FLAGS[0], &7u64.to_ne_bytes()).map_err(drop), Ok(Some(Command::SetFlags(7))));
    }

    #[test]
    fn immutable_is_said_in_both_languages() {
        assert_eq!(extended_flags(0x0008_0010)[..4], 8u32.to_ne_bytes());
        assert_eq!(extended_flags(0).len(), EXTENDED_BYTES);
    }
}
