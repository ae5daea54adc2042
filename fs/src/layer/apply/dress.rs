//! Owner, mode, times and extended attributes of what was written.
//!
//! Owns the order: the owner first, because changing it drops set-id bits and capabilities; then the mode; then attributes,
//! because an ACL refines the mode; times last. Invariant: nothing is inherited from the umask, from a set-group-id
//! directory or from a default ACL.

use super::error::ApplyError;
use crate::error::{Error, Result};
use crate::layer::archive::Attributes;
use crate::layer::override_stat::{Overridden, OverrideStat, is_override_xattr, store_security};
use crate::layer::whiteout::is_private_xattr;
use crate::sys::{node, open, stat, xattr};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

/// Errnos by which a filesystem or a user namespace says that it takes no such attribute.
const XATTR_REFUSALS: [i32; 2] = [libc::EPERM, libc::EOPNOTSUPP];

/// The mode of files that show another one.
const OVERRIDDEN_MODE: u32 = 0o755;

/// Dresses files.
#[derive(Debug)]
pub struct Dresser {
    override_xattr: Option<&'static OsStr>,
    /// Owner and group that a new file has by itself.
    own: (u32, u32),
    mask: u32,
    /// Files in the layer's root are born with nothing inherited.
    pub root_is_plain: bool,
    /// Attributes that were left out.
    pub left_out: u64,
}

impl Dresser {
    /// Finds out what new files will look like.
    pub fn new(root: BorrowedFd<'_>, owners: OverrideStat) -> Result<Self> {
        let found = stat::stat_fd(root)?;
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let default_acl = xattr::value(root, OsStr::new("system.posix_acl_default"))?.is_some();
        let root_is_plain = found.mode & libc::S_ISGID == 0 && found.gid == own.1 && !default_acl;
        let mask = node::creation_mask();
        Ok(Dresser { override_xattr: owners.xattr(), own, mask, root_is_plain, left_out: 0 })
    }

    /// Whether owners, modes and devices are kept in an attribute.
    pub fn overrides(&self) -> bool {
        self.override_xattr.is_some()
    }

    /// The mode that a regular file is created with: what it needs, so that most need no further call.
    pub fn creation_mode(&self, attributes: &Attributes) -> u32 {
        if self.overrides() { OVERRIDDEN_MODE } else { attributes.mode & 0o777 }
    }

    /// Dresses a regular file or a directory through a descriptor that is open for data or listing; `kind` are the type bits
    /// and the device number to show. `born` is the mode it was created with, where nothing was inherited.
    pub fn open(
        &mut self,
        file: BorrowedFd<'_>,
        kind: (u32, u64),
        attributes: &Attributes,
        born: Option<u32>,
    ) -> Result<(), ApplyError> {
        let mode = if self.overrides() { OVERRIDDEN_MODE } else { attributes.mode };
        if let Some(name) = self.override_xattr {
            let Attributes { uid, gid, mode: permissions, .. } = *attributes;
            let value = Overridden { uid, gid, permissions, kind: Some(kind) };
            node::set_xattr(file, name, value.format().as_bytes())?;
        } else if born.is_none() || self.own != (attributes.uid, attributes.gid) {
            node::set_owner(file, attributes.uid, attributes.gid).map_err(|error| owner(error, attributes))?;
        }
        if born.is_none_or(|born| born & !self.mask != mode) {
            node::set_mode(file, mode)?;
        }
        self.xattrs(attributes, |name, value| node::set_xattr(file, name, value))?;
        let mtime = attributes.mtime;
        Ok(node::set_times(file, attributes.atime.unwrap_or(mtime), mtime)?)
    }

    /// Dresses anything else by its name, which was just made; whether it is a symbolic link, and whether it inherited nothing.
    pub fn named(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        (is_link, plain): (bool, bool),
        attributes: &Attributes,
    ) -> Result<(), ApplyError> {
        let Attributes { uid, gid, mode, mtime, atime, .. } = *attributes;
        // A symbolic link takes no attribute of users: under an override its owner is lost, as with every tool that keeps one.
        if !self.overrides() && (!plain || self.own != (uid, gid)) {
            node::set_owner_at(parent, name, uid, gid).map_err(|error| owner(error, attributes))?;
        }
        if !is_link {
            node::set_mode_at(parent, name, mode)?;
        }
        if !attributes.xattrs.is_empty() {
            let file = open::open_path(parent, name)?;
            self.xattrs(attributes, |name, value| xattr::set(file.as_fd(), name, value, 0))?;
        }
        Ok(node::set_times_at(parent, name, atime.unwrap_or(mtime), mtime)?)
    }

    fn xattrs(&mut self, attributes: &Attributes, set: impl Fn(&OsStr, &[u8]) -> Result<()>) -> Result<(), ApplyError> {
        for (name, value) in &attributes.xattrs {
            let name = OsStr::from_bytes(name);
            // An image that could set these would decide what other layers show.
            if is_private_xattr(name) || is_override_xattr(name) {
                self.left_out += 1;
                continue;
            }
            let stored = if self.overrides() { store_security(name) } else { None };
            match set(stored.as_deref().unwrap_or(name), value) {
                Err(error) if error.errno().is_some_and(|errno| XATTR_REFUSALS.contains(&errno)) => self.left_out += 1,
                other => other?,
            }
        }
        Ok(())
    }
}

fn owner(error: Error, attributes: &Attributes) -> ApplyError {
    match error.errno() {
        Some(libc::EINVAL | libc::EPERM) => ApplyError::OwnerNotMapped { uid: attributes.uid, gid: attributes.gid },
        _ => error.into(),
    }
}
