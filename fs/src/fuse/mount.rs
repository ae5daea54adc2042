//! Putting the mount into the tree and taking it out again.
//!
//! Owns mount(2), umount2(2) and the choice between them and fusermount3, and taking over a device that somebody else has
//! mounted. Must not know requests. Invariant: only our own mount is ever unmounted, never one that somebody put on top of it.

use super::session::SessionError;
use super::{fusermount, read_ahead};
use crate::options::{Access, MountSettings};
use crate::sys::descriptor;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};
use rustix::thread::CapabilitySet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Descriptors that the layers must leave to the process: stdio, the FUSE device once per thread, directories in passing.
const DESCRIPTORS_RESERVED: usize = 256;

/// Linux's number of /dev/fuse: miscellaneous devices, the 229th.
const FUSE_DEVICE: (u32, u32) = (10, 229);

/// More would only fill kernel memory.
const DESCRIPTORS_MAX: usize = 1 << 20;

/// Raises the soft limit to the hard one; returns how many descriptors the layers may hold.
pub(super) fn raise_descriptor_limit() -> Result<usize, SessionError> {
    let what = "cannot read the limit of open files";
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(SessionError::process(what))?;
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            log::warn!("the limit of open files stays at {soft}: {error}");
            soft
        }
    };
    let limit = usize::try_from(limit).unwrap_or(DESCRIPTORS_MAX).min(DESCRIPTORS_MAX);
    Ok(limit.saturating_sub(DESCRIPTORS_RESERVED).max(limit / 2))
}

/// How a mount can be made.
pub(super) enum Device {
    /// mount(2) on our own descriptor; the helper, should the kernel still say EPERM.
    Own(File, Option<PathBuf>),
    /// fusermount3 opens the device and hands it over.
    Helper(PathBuf),
    /// Somebody has mounted it already and started us with it.
    Given(OwnedFd),
}

impl Device {
    /// Checks that mounting has a chance, before anything is touched.
    pub(super) fn open(auto_unmount: bool) -> Result<Device, SessionError> {
        let device = open_device()?;
        let helper = fusermount::find();
        match helper {
            // Only the helper outlives us to unmount.
            Some(helper) if auto_unmount => Ok(Device::Helper(helper)),
            None if auto_unmount || !may_mount() => Err(SessionError::HelperMissing),
            helper => Ok(Device::Own(device, helper)),
        }
    }

    /// The device that is descriptor `number` of this process.
    pub(super) fn given(number: i32) -> Result<Device, SessionError> {
        let refused = |cause: io::Error| SessionError::Given { number, cause };
        let bad =
            |error: crate::error::Error| refused(io::Error::from_raw_os_error(error.errno().unwrap_or(libc::EBADF)));
        let device = descriptor::inherited(number).map_err(bad)?;
        let stat = rustix::fs::fstat(&device).map_err(|errno| refused(errno.into()))?;
        let is_device = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::CharacterDevice;
        match is_device && stat.st_rdev == rustix::fs::makedev(FUSE_DEVICE.0, FUSE_DEVICE.1) {
            true => Ok(Device::Given(device)),
            false => Err(refused(io::Error::other("it is not /dev/fuse"))),
        }
    }

    /// Makes the mount.
    pub(super) fn mount(self, settings: &MountSettings, path: &Path) -> Result<(OwnedFd, Mounted), SessionError> {
        let (descriptor, keeper) = match self {
            Device::Given(device) => return Ok((device, Mounted(None))),
            Device::Helper(helper) => fusermount::mount(&helper, settings, path)?,
            Device::Own(device, helper) => match (mount_own(&device, settings, path), helper) {
                (Ok(()), _) => (device.into(), None),
                (Err(Errno::EPERM), Some(helper)) => fusermount::mount(&helper, settings, path)?,
                (Err(Errno::EPERM), None) => return Err(SessionError::HelperMissing),
                (Err(errno), _) => {
                    return Err(SessionError::Refused { path: path.to_owned(), cause: errno.into() });
                }
            },
        };
        let id = mount_id(path).ok();
        Ok((descriptor, Mounted(Some(Place { path: path.to_owned(), id, _keeper: keeper }))))
    }
}

/// Opens /dev/fuse: one open file for each mount.
pub(super) fn open_device() -> Result<File, SessionError> {
    OpenOptions::new().read(true).write(true).open("/dev/fuse").map_err(|cause| {
        let advice = match cause.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
                "load the kernel module (modprobe fuse), or pass the device into the container (--device /dev/fuse)"
            }
            _ => "allow this user to read and write it, or allow the device in the container's cgroup",
        };
        SessionError::Device { cause, advice }
    })
}

/// Whether mount(2) may be allowed: CAP_SYS_ADMIN, at least over our own user namespace.
fn may_mount() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// See mount(2) and Documentation/filesystems/fuse.rst in the kernel's tree.
fn mount_own(device: &File, settings: &MountSettings, path: &Path) -> Result<(), Errno> {
    let mut data = format!(
        "fd={},rootmode={:o},user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        libc::S_IFDIR,
        nix::unistd::getuid(),
        nix::unistd::getgid(),
    );
    if settings.access != Access::Owner {
        // The kernel knows no `allow_root`: it lets everybody in, and `fuser` turns the others away.
        data.push_str(",allow_other");
    }
    nix::mount::mount(
        Some(settings.source()),
        path,
        Some(format!("fuse.{}", settings.subtype).as_str()),
        settings.flags,
        Some(data.as_str()),
    )
}

/// A live mount; none of ours to take away, where the device was given.
pub(super) struct Mounted(Option<Place>);

struct Place {
    path: PathBuf,
    /// See `STATX_MNT_ID` in statx(2); absent before Linux 5.8.
    id: Option<u64>,
    /// While it is open, fusermount3 waits to unmount after us.
    _keeper: Option<UnixStream>,
}

impl Mounted {
    /// Whether somebody else made it.
    pub(super) fn is_given(&self) -> bool {
        self.0.is_none()
    }

    /// Takes the mount out of the tree; who has files open in it keeps them. One of somebody else's goes when he lets it go.
    pub(super) fn unmount(&self) -> Result<(), String> {
        self.0.as_ref().map_or(Ok(()), Place::unmount)
    }

    /// Has the kernel read further ahead, where this user may say so. A device that somebody gave us is for him to see to.
    pub(super) fn read_ahead(&self) {
        let Some(place) = &self.0 else { return };
        if let Err(error) = place.read_ahead() {
            log::debug!("the kernel's own measure of reading ahead stays: {error}");
        }
    }
}

impl Place {
    fn read_ahead(&self) -> io::Result<()> {
        let top = top_at(&self.path)?;
        if self.id.is_some_and(|ours| ours != top.stx_mnt_id) {
            return Err(io::Error::other("another mount covers this one"));
        }
        read_ahead::raise_at(&top)
    }

    fn unmount(&self) -> Result<(), String> {
        let path = self.path.display();
        match (self.id, mount_id(&self.path)) {
            (Some(ours), Ok(found)) if ours != found => {
                return Err(format!("{path} is not unmounted: another mount covers it, or it is gone already"));
            }
            _ => {}
        }
        let result = match umount2(&self.path, MntFlags::UMOUNT_NOFOLLOW) {
            Err(Errno::EBUSY) => umount2(&self.path, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH),
            result => result,
        };
        match result {
            Ok(()) => Ok(()),
            Err(Errno::EPERM) => fusermount::unmount(&self.path),
            Err(errno) => Err(format!("cannot unmount {path}: {}", errno.desc())),
        }
    }
}

/// What lies on top at a path. The flags keep the kernel from asking us, who may not be serving yet.
fn top_at(path: &Path) -> io::Result<Statx> {
    Ok(statx(CWD, path, AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT, StatxFlags::MNT_ID)?)
}

/// The mount on top at a path.
fn mount_id(path: &Path) -> io::Result<u64> {
    let found = top_at(path)?;
    match StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::MNT_ID) {
        true => Ok(found.stx_mnt_id),
        false => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// The words by which fusermount3 sets the same flags. It sets nosuid and nodev by itself.
pub(super) fn flag_words(flags: MsFlags) -> impl Iterator<Item = &'static str> {
    const WORDS: [(MsFlags, &str); 5] = [
        (MsFlags::MS_RDONLY, "ro"),
        (MsFlags::MS_NOEXEC, "noexec"),
        (MsFlags::MS_NOATIME, "noatime"),
        (MsFlags::MS_SYNCHRONOUS, "sync"),
        (MsFlags::MS_DIRSYNC, "dirsync"),
    ];
    WORDS.into_iter().filter(move |(flag, _)| flags.contains(*flag)).map(|(_, word)| word)
}
