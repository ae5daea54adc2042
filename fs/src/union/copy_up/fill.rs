//! What makes a built file like a lower one: data, owner, mode and extended attributes.
//!
//! Owns which calls that takes, and leaves out those that would change nothing. Must not know names. Invariant: what a user
//! sees of the copy is what they saw of the lower file; a call whose result is not known beforehand is made.

use crate::error::Result;
use crate::layer::{OverrideStat, Upper, is_override_xattr, is_private_xattr};
use crate::sys::copy::{Copied, copy_data, share_data};
use crate::sys::stat::{self, Stat};
use crate::sys::xattr;
use crate::union::Union;
use crate::union::inode::{Inode, XattrsSeen};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

/// Which lower filesystems' files can share extents with those of the upper layer.
pub struct Sharing {
    /// The devices of the layers' roots, each once, and whether one has refused for good.
    refused: Box<[(u64, AtomicBool)]>,
}

impl Sharing {
    /// Nothing is known of these devices.
    pub fn new(devices: impl Iterator<Item = u64>) -> Self {
        let devices: BTreeSet<u64> = devices.collect();
        Sharing { refused: devices.into_iter().map(|device| (device, AtomicBool::new(false))).collect() }
    }

    fn of(&self, device: u64) -> Option<&AtomicBool> {
        self.refused.iter().find(|(known, _)| *known == device).map(|(_, refused)| refused)
    }
}

impl Union {
    /// The permissions that a copy can be made with and keep: not those that a write or a change of owner drops, nor such as
    /// would forbid dressing it.
    pub(super) fn lasting_permissions(&self, shape: &Stat) -> Option<u32> {
        let (permissions, needed) = (shape.mode & 0o7777, if shape.is_dir() { 0o700 } else { 0o600 });
        let permits = self.privilege.overrides_modes || permissions & needed == needed;
        (permits && permissions & 0o7000 == 0).then_some(permissions)
    }

    /// Fills an empty file with the first `length` bytes of a lower one.
    pub(super) fn fill(&self, shape: &Stat, from: BorrowedFd<'_>, to: BorrowedFd<'_>, length: u64) -> Result<Copied> {
        if length == 0 {
            return Ok(Copied::Shared);
        }
        let refused = self.sharing.of(shape.dev);
        if length == shape.size && !refused.is_some_and(|refused| refused.load(Ordering::Relaxed)) {
            match (share_data(from, to), refused) {
                (Some(true), _) => return Ok(Copied::Shared),
                (None, Some(refused)) => refused.store(true, Ordering::Relaxed),
                _ => {}
            }
        }
        copy_data(from, to, length)?;
        Ok(Copied::Written)
    }

    /// Gives a built file the owner, mode and extended attributes of the lower one that `inode` shows; times come last, by the
    /// caller. Returns what the file was made as.
    pub(super) fn dress(
        &self,
        upper: &Upper,
        inode: &Inode,
        (source, shape): (BorrowedFd<'_>, &Stat),
        to: BorrowedFd<'_>,
    ) -> Result<Stat> {
        let built = stat::stat_fd(to)?;
        // What the copy is to show of its type, where only an attribute can say it.
        let shown = Stat { mode: shape.mode, rdev: shape.rdev, ..built };
        // The owner first, because changing it drops privileges; the mode last, because it may forbid setting attributes.
        upper.set_owner_and_mode(to, &shown, (Some(shape.uid), Some(shape.gid)), None)?;
        let listed = self.copy_xattrs(upper, inode, source, to)?;
        let other = built.mode & 0o7777 != shape.mode & 0o7777;
        if (other || listed) && upper.override_stat() == OverrideStat::Off {
            let shown = Stat { uid: shape.uid, gid: shape.gid, ..shown };
            upper.set_owner_and_mode(to, &shown, (None, None), Some(shape.mode & 0o7777))?;
        }
        Ok(built)
    }

    /// Copies the attributes that belong to a copy; whether an access control list was among them, which changes the mode.
    fn copy_xattrs(&self, upper: &Upper, inode: &Inode, source: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<bool> {
        let mut listed = false;
        let mut copy = |name: &OsStr, value: &[u8]| {
            listed |= is_acl(name);
            xattr::set(to, name, value, 0)
        };
        if let Some((index, node)) = self.index_of(inode) {
            for name in index.xattr_names(node).filter(|name| self.is_copied(upper, name)) {
                if let Some(value) = index.xattr(node, name) {
                    copy(name, value)?;
                }
            }
            return Ok(listed);
        }
        if inode.state.read().xattrs == XattrsSeen::Nothing {
            return Ok(false);
        }
        for name in
            xattr::names(source)?.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(OsStr::from_bytes)
        {
            if self.is_copied(upper, name)
                && let Some(value) = xattr::value(source, name)?
            {
                copy(name, &value)?;
            }
        }
        Ok(listed)
    }

    /// Whether an attribute of a lower file belongs to its copy.
    fn is_copied(&self, upper: &Upper, name: &OsStr) -> bool {
        // The label of a new file is for the security module to choose (selinux(8)); override attributes were applied.
        let is_label = name == "security.selinux";
        let is_override = is_override_xattr(name) && upper.layer().is_overridden();
        let escaped = crate::union::xattr::is_escaped(name);
        (!is_private_xattr(name) || escaped) && !is_label && !is_override && (self.acl || !is_acl(name))
    }
}

fn is_acl(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"system.posix_acl_")
}
