//! File handles and filesystem UUIDs: what names an inode for good.
//!
//! Invariant: only encodes; a handle is compared, never opened, so no privilege is needed.
#![expect(unsafe_code, reason = "neither rustix nor nix wraps these two calls")]

use super::{calls, os};
use crate::error::Result;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A file handle as name_to_handle_at(2) gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileHandle {
    /// The filesystem's own type of the handle.
    pub kind: u8,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// `MAX_HANDLE_SZ` of the kernel.
const HANDLE_BYTES_MAX: usize = 128;

#[repr(C)]
struct RawHandle {
    handle_bytes: u32,
    handle_type: i32,
    handle: [u8; HANDLE_BYTES_MAX],
}

/// The handle of a name; `None` where the filesystem has no handles. See name_to_handle_at(2).
pub fn file_handle(parent: BorrowedFd<'_>, name: &OsStr) -> Result<Option<FileHandle>> {
    use std::os::unix::ffi::OsStrExt;
    let Ok(name) = std::ffi::CString::new(name.as_bytes()) else {
        return Err(os("name_to_handle_at")(Errno::INVAL));
    };
    let mut raw = RawHandle { handle_bytes: HANDLE_BYTES_MAX as u32, handle_type: 0, handle: [0; HANDLE_BYTES_MAX] };
    let mut mount_id: libc::c_int = 0;
    calls::count(1);
    // SAFETY: `raw` is a file_handle with room for the handle_bytes it announces, `name` ends in NUL, both outlive the
    // call, and the kernel writes no further than handle_bytes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            parent.as_raw_fd(),
            name.as_ptr(),
            (&raw mut raw).cast::<libc::c_void>(),
            &raw mut mount_id,
            0,
        )
    };
    if result != 0 {
        let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
        return match errno {
            Errno::OPNOTSUPP | Errno::OVERFLOW | Errno::NOSYS | Errno::PERM => Ok(None),
            _ => Err(os("name_to_handle_at")(errno)),
        };
    }
    let length = (raw.handle_bytes as usize).min(HANDLE_BYTES_MAX);
    Ok(u8::try_from(raw.handle_type).ok().map(|kind| FileHandle { kind, bytes: raw.handle[..length].to_vec() }))
}

#[repr(C)]
struct FsUuid {
    length: u8,
    uuid: [u8; 16],
}

nix::ioctl_read!(fs_ioc_getfsuuid, 0x15, 0, FsUuid);

/// The UUID of the filesystem behind a descriptor; zeros where it has none or the kernel is older than 6.9
/// (`FS_IOC_GETFSUUID`, include/uapi/linux/fs.h).
pub fn filesystem_uuid(fd: BorrowedFd<'_>) -> [u8; 16] {
    let mut raw = FsUuid { length: 0, uuid: [0; 16] };
    calls::count(1);
    // SAFETY: the ioctl fills exactly one struct fsuuid2, which FsUuid mirrors.
    match unsafe { fs_ioc_getfsuuid(fd.as_raw_fd(), &raw mut raw) } {
        Ok(_) if raw.length == 16 => raw.uuid,
        _ => [0; 16],
    }
}
