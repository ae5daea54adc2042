//! Extended attributes as a user sees them.
//!
//! Owns which stored name a shown one has. Marks of union filesystems are hidden; a user's own `user.overlay.x` and
//! `trusted.overlay.x`, such as an overlayfs inside the mount sets, are stored with one more `overlay.`, as the kernel's
//! overlayfs does ("Nesting overlayfs mounts", overlayfs.rst). Invariant: no name that a user sets is ever read as a mark.

use super::copy_up::Amount;
use super::inode::{Inode, InodeNumber, XattrsSeen};
use super::{Caller, Union, acl};
use crate::error::{Error, Result};
use crate::layer::{LayerId, OverrideStat, is_override_xattr, is_private_xattr, show_security, store_security};
use crate::sys::xattr;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

/// Which attributes are served, and how owner and mode are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XattrPolicy {
    /// Whether users see any.
    pub enabled: bool,
    /// Which attribute carries owner and mode.
    pub override_stat: OverrideStat,
}

/// The label that ls(1) asks for.
const SELINUX: &str = "security.selinux";

/// Prefixes that are escaped, with what is put behind them.
const ESCAPED: [(&[u8], &[u8]); 2] = [(b"user.overlay.", b"overlay."), (b"trusted.overlay.", b"overlay.")];

fn escape(name: &OsStr) -> Option<OsString> {
    ESCAPED.iter().find_map(|(prefix, more)| {
        let rest = name.as_bytes().strip_prefix(*prefix)?;
        Some(OsString::from_vec([prefix, *more, rest].concat()))
    })
}

fn unescape(name: &OsStr) -> Option<OsString> {
    ESCAPED.iter().find_map(|(prefix, more)| {
        let rest = name.as_bytes().strip_prefix(*prefix)?.strip_prefix(*more)?;
        Some(OsString::from_vec([prefix, rest].concat()))
    })
}

/// Whether a stored name is a user's own below a prefix of marks.
pub(super) fn is_escaped(name: &OsStr) -> bool {
    unescape(name).is_some()
}

/// The stored name of a shown one; `None` where users have no such attribute.
fn stored_name(name: &OsStr, override_stat: OverrideStat) -> Option<OsString> {
    if let Some(escaped) = escape(name) {
        return Some(escaped);
    }
    if is_private_xattr(name) || is_override_xattr(name) {
        return None;
    }
    match override_stat {
        OverrideStat::Off => Some(name.to_owned()),
        _ => Some(store_security(name).unwrap_or_else(|| name.to_owned())),
    }
}

/// The shown name of a stored one; `None` where it is hidden.
fn shown_name(name: &OsStr, overridden: bool) -> Option<OsString> {
    if let Some(unescaped) = unescape(name) {
        return Some(unescaped);
    }
    if is_private_xattr(name) || is_override_xattr(name) {
        return None;
    }
    match overridden {
        true => Some(show_security(name).unwrap_or_else(|| name.to_owned())),
        false => Some(name.to_owned()),
    }
}

fn is_acl(name: &OsStr) -> bool {
    name == acl::ACCESS || name == acl::DEFAULT
}

impl Union {
    fn stored(&self, inode: &Inode, name: &OsStr) -> Result<OsString> {
        if !self.xattrs.enabled || (is_acl(name) && !self.acl) {
            return Err(Error::NotSupported);
        }
        let override_stat = match self.layer_of(inode)?.is_overridden() {
            true => OverrideStat::User,
            false => OverrideStat::Off,
        };
        stored_name(name, override_stat).ok_or(Error::NotPermitted)
    }

    /// The value of an attribute.
    pub fn xattr(&self, inode: InodeNumber, name: &OsStr) -> Result<Vec<u8>> {
        let inode = self.inode(inode)?;
        let stored = match self.stored(&inode, name) {
            Err(Error::NotPermitted) => return Err(Error::NoAttribute),
            other => other?,
        };
        if self.is_listed(name) && self.lacks(&inode, name)? {
            return Err(Error::NoAttribute);
        }
        let value = match self.index_of(&inode) {
            Some((index, node)) => index.xattr(node, &stored).map(<[u8]>::to_vec),
            None => xattr::value(self.path_fd(&inode)?.as_fd(), &stored)?,
        };
        let value = value.ok_or(Error::NoAttribute)?;
        match is_acl(name) {
            true => acl::shown(&value, &self.ids),
            false => Ok(value),
        }
    }

    /// Whether an attribute is there only if it is listed: a filesystem may answer to names of its own in `system.`, and a security
    /// module to the name of its label.
    fn is_listed(&self, name: &OsStr) -> bool {
        match name.as_bytes().split(|byte| *byte == b'.').next() {
            Some(b"system") => is_acl(name),
            Some(b"security") => name == super::attr::CAPABILITY || (name == SELINUX && !self.labels),
            _ => true,
        }
    }

    /// Whether an inode is known not to have an attribute. Of every file the kernel asks for some, and ls(1) for more: where
    /// there is nothing at all, it is listed once.
    fn lacks(&self, inode: &Arc<Inode>, name: &OsStr) -> Result<bool> {
        let changes = {
            let state = inode.state.read();
            match state.xattrs {
                XattrsSeen::Nothing => return Ok(true),
                XattrsSeen::NoCapability if name == super::attr::CAPABILITY => return Ok(true),
                _ => state.xattr_changes,
            }
        };
        if self.index_of(inode).is_some() {
            return Ok(false);
        }
        let names = self.stored_names(inode)?;
        let overridden = self.layer_of(inode)?.is_overridden();
        let mut names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(OsStr::from_bytes);
        if names.any(|name| shown_name(name, overridden).is_some()) {
            return Ok(false);
        }
        let mut state = inode.state.write();
        if state.xattr_changes == changes {
            state.xattrs = XattrsSeen::Nothing;
        }
        Ok(true)
    }

    /// The names of all attributes of an inode's current file as its layer keeps them, each ended by NUL.
    fn stored_names(&self, inode: &Arc<Inode>) -> Result<Vec<u8>> {
        match self.lower_name(inode)? {
            Some((parent, name)) => xattr::names_at(parent.as_fd(), name),
            None => xattr::names(self.path_fd(inode)?.as_fd()),
        }
    }

    /// The names of all attributes, each ended by NUL.
    pub fn list_xattrs(&self, inode: InodeNumber) -> Result<Vec<u8>> {
        let inode = self.inode(inode)?;
        if !self.xattrs.enabled {
            return Err(Error::NotSupported);
        }
        let overridden = self.layer_of(&inode)?.is_overridden();
        let stored = match self.index_of(&inode) {
            Some((index, node)) => index.xattr_names(node).flat_map(|name| [name.as_bytes(), &[0]].concat()).collect(),
            None => self.stored_names(&inode)?,
        };
        let mut shown = Vec::new();
        for name in stored.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let name = OsStr::from_bytes(name);
            if is_acl(name) && !self.acl {
                continue;
            }
            if let Some(name) = shown_name(name, overridden) {
                shown.extend_from_slice(name.as_bytes());
                shown.push(0);
            }
        }
        Ok(shown)
    }

    /// Sets an attribute; `flags` are `XATTR_CREATE` and `XATTR_REPLACE`, see setxattr(2).
    pub fn set_xattr(&self, caller: &Caller, inode: InodeNumber, name: &OsStr, value: &[u8], flags: i32) -> Result<()> {
        let inode = self.inode(inode)?;
        let _changing = self.changing(&inode);
        self.stack.upper()?;
        self.stored(&inode, name)?;
        self.copy_up(&inode, Amount::Whole)?;
        // The upper layer may keep it under another name than the lower one did.
        let stored = self.stored(&inode, name)?;
        let fd = self.path_fd(&inode)?;
        let flags = u32::try_from(flags).map_err(|_| Error::InvalidArgument)?;
        let done = match is_acl(name) {
            true => xattr::set(fd.as_fd(), &stored, &acl::stored(value, &self.ids)?, flags),
            false => xattr::set(fd.as_fd(), &stored, value, flags),
        };
        let mut state = inode.state.write();
        state.xattrs = XattrsSeen::Unknown;
        state.xattr_changes += 1;
        drop(state);
        done?;
        match is_acl(name) {
            true => self.acl_changed(caller, &inode, name),
            false => Ok(()),
        }
    }

    /// Removes an attribute.
    pub fn remove_xattr(&self, inode: InodeNumber, name: &OsStr) -> Result<()> {
        let inode = self.inode(inode)?;
        let _changing = self.changing(&inode);
        self.stack.upper()?;
        let stored = self.stored(&inode, name)?;
        let present = xattr::value(self.path_fd(&inode)?.as_fd(), &stored)?.is_some();
        if !present {
            return Err(Error::NoAttribute);
        }
        self.copy_up(&inode, Amount::Whole)?;
        let stored = self.stored(&inode, name)?;
        xattr::remove(self.path_fd(&inode)?.as_fd(), &stored)?;
        if is_acl(name) {
            inode.state.write().default_acl = None;
        }
        Ok(())
    }

    /// A list changes permission bits; somebody outside the file's group must not keep set-group-id that way.
    fn acl_changed(&self, caller: &Caller, inode: &Arc<Inode>, name: &OsStr) -> Result<()> {
        inode.state.write().default_acl = None;
        if name != acl::ACCESS || caller.uid == 0 {
            return Ok(());
        }
        let fd = self.path_fd(inode)?;
        let upper = self.stack.upper()?;
        let current = self.stack.layer(LayerId::UPPER)?.stat_fd(fd.as_fd())?;
        let (_, group) = self.ids.shown(current.uid, current.gid);
        if current.mode & libc::S_ISGID == 0 || crate::sys::credentials::is_member(caller.pid, caller.gid, group) {
            return Ok(());
        }
        upper.set_owner_and_mode(fd.as_fd(), &current, (None, None), Some(current.mode & !libc::S_ISGID))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_shown_again() {
        for name in
            ["user.a", "user.overlay.opaque", "trusted.overlay.x", "security.capability", "user.overlay.overlay.y"]
        {
            for policy in [OverrideStat::Off, OverrideStat::User] {
                let stored = stored_name(OsStr::new(name), policy).expect("is allowed");
                assert!(!is_private_xattr(&stored) || is_escaped(&stored), "{name} is stored as a mark: {stored:?}");
                assert_eq!(shown_name(&stored, policy != OverrideStat::Off), Some(name.into()), "{name}");
            }
        }
    }

    #[test]
    fn marks_are_hidden() {
        for name in [
            "user.overlay.opaque",
            "trusted.overlay.origin",
            "user.fuseoverlayfs.opaque",
            "user.containers.override_stat",
        ] {
            assert_eq!(shown_name(OsStr::new(name), false), None, "{name}");
        }
        assert_eq!(stored_name(OsStr::new("user.fuseoverlayfs.opaque"), OverrideStat::Off), None);
    }
}
