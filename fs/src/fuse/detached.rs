//! A mount that is attached nowhere: whoever holds its descriptor puts it where he wants it, in whatever mount namespace.
//!
//! Owns fsopen(2), fsconfig(2) and fsmount(2). Must not know who serves it. Invariant: nothing becomes visible here, and when
//! both descriptors are closed nothing is left.

use super::mount::open_device;
use super::session::SessionError;
use crate::options::{Access, MountSettings};
use nix::mount::MsFlags;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};
use std::os::fd::{AsRawFd as _, OwnedFd};

/// A device, and the mount of it.
#[derive(Debug)]
pub struct Detached {
    /// An open /dev/fuse, to be served by `lamina-fs -o OPTIONS /dev/fd/N`.
    pub device: OwnedFd,
    /// The mount, for move_mount(2).
    pub mount: OwnedFd,
}

/// Makes a mount as `lamina-fs` would, with the same parameters. Both descriptors are close-on-exec.
///
/// It belongs to the caller's user namespace: processes of that one and of those below can use it, and the device must be served
/// from there. In a user namespace of one's own, a mount namespace of one's own is needed too.
///
/// # Errors
/// [`SessionError::Device`], [`SessionError::Detached`].
pub fn mount(settings: &MountSettings) -> Result<Detached, SessionError> {
    let device = OwnedFd::from(open_device()?);
    let failed = |step| move |errno: Errno| SessionError::Detached { step, cause: errno.into() };
    let filesystem = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed("fsopen"))?;
    let words = [
        ("source", settings.source().to_owned()),
        ("subtype", settings.subtype.clone()),
        ("fd", device.as_raw_fd().to_string()),
        ("rootmode", format!("{:o}", libc::S_IFDIR)),
        ("user_id", nix::unistd::getuid().to_string()),
        ("group_id", nix::unistd::getgid().to_string()),
    ];
    for (key, value) in words {
        fsconfig_set_string(&filesystem, key, value).map_err(failed("fsconfig"))?;
    }
    let mut flags = vec!["default_permissions"];
    if settings.access != Access::Owner {
        flags.push("allow_other");
    }
    if settings.flags.contains(MsFlags::MS_RDONLY) {
        flags.push("ro");
    }
    for flag in flags {
        fsconfig_set_flag(&filesystem, flag).map_err(failed("fsconfig"))?;
    }
    fsconfig_create(&filesystem).map_err(failed("fsconfig"))?;
    let mount = fsmount(&filesystem, FsMountFlags::FSMOUNT_CLOEXEC, attributes(settings.flags));
    Ok(Detached { device, mount: mount.map_err(failed("fsmount"))? })
}

/// What mount(2) takes as flags of one mount, in the words of fsmount(2).
fn attributes(flags: MsFlags) -> MountAttrFlags {
    const SAME: [(MsFlags, MountAttrFlags); 6] = [
        (MsFlags::MS_RDONLY, MountAttrFlags::MOUNT_ATTR_RDONLY),
        (MsFlags::MS_NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (MsFlags::MS_NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
        (MsFlags::MS_NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
        (MsFlags::MS_NOATIME, MountAttrFlags::MOUNT_ATTR_NOATIME),
        (MsFlags::MS_NODIRATIME, MountAttrFlags::MOUNT_ATTR_NODIRATIME),
    ];
    SAME.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, attribute)| *attribute).collect()
}
