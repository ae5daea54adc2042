//! Owner, mode and type kept in an extended attribute, for files that the server's user may not own or create.
//!
//! Owns the format `uid:gid:mode[:type]` of containers-storage and fuse-overlayfs: ids decimal, mode octal, type one of
//! `dir file symlink pipe socket block-MAJOR-MINOR char-MAJOR-MINOR` (a colon in place of the first dash is read too).
//! Invariant: a value that does not parse changes nothing.

use crate::sys::stat::Stat;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Which attribute carries owner and mode in the upper layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OverrideStat {
    /// None: the files' own.
    #[default]
    Off,
    /// `security.fuseoverlayfs.override_stat` (`xattr_permissions=1`), needs privilege to set.
    Privileged,
    /// `user.containers.override_stat` (`xattr_permissions=2`).
    User,
}

impl OverrideStat {
    /// The attribute's name.
    pub fn xattr(self) -> Option<&'static OsStr> {
        match self {
            OverrideStat::Off => None,
            OverrideStat::Privileged => Some(OsStr::new("security.fuseoverlayfs.override_stat")),
            OverrideStat::User => Some(OsStr::new("user.containers.override_stat")),
        }
    }
}

/// Every spelling that is read, the ones in use first.
pub const OVERRIDE_XATTRS: [&str; 3] =
    ["user.containers.override_stat", "security.fuseoverlayfs.override_stat", "user.fuseoverlayfs.override_stat"];

/// What the attribute says.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub struct Overridden {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, 0..=0o7777.
    pub permissions: u32,
    /// Type bits and device number, where given.
    pub kind: Option<(u32, u64)>,
}

impl Overridden {
    /// What the attribute must say to show these attributes.
    pub fn of(stat: &Stat) -> Self {
        let rdev = match stat.format() {
            libc::S_IFCHR | libc::S_IFBLK => stat.rdev,
            _ => 0,
        };
        Overridden { uid: stat.uid, gid: stat.gid, permissions: stat.mode & 0o7777, kind: Some((stat.format(), rdev)) }
    }

    /// Reads a value; `None` where it does not parse.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?.trim_end_matches('\0');
        let mut parts = text.splitn(4, ':');
        let uid = parts.next()?.parse().ok()?;
        let gid = parts.next()?.parse().ok()?;
        let permissions = u32::from_str_radix(parts.next()?, 8).ok()? & 0o7777;
        let kind = match parts.next() {
            None => None,
            Some(kind) => Some(parse_kind(kind)?),
        };
        Some(Overridden { uid, gid, permissions, kind })
    }

    /// Writes a value.
    pub fn format(&self) -> String {
        let head = format!("{}:{}:{:04o}", self.uid, self.gid, self.permissions);
        let Some((format, rdev)) = self.kind else { return head };
        let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
        match format {
            libc::S_IFDIR => format!("{head}:dir"),
            libc::S_IFREG => format!("{head}:file"),
            libc::S_IFLNK => format!("{head}:symlink"),
            libc::S_IFIFO => format!("{head}:pipe"),
            libc::S_IFSOCK => format!("{head}:socket"),
            libc::S_IFBLK => format!("{head}:block-{major}-{minor}"),
            libc::S_IFCHR => format!("{head}:char-{major}-{minor}"),
            _ => head,
        }
    }

    /// Shows a file as the attribute says. A directory stays one, and only a regular file can stand for another type.
    pub fn apply(&self, stat: &mut Stat) {
        stat.uid = self.uid;
        stat.gid = self.gid;
        stat.mode = stat.format() | self.permissions;
        if let Some((format, rdev)) = self.kind
            && stat.format() == libc::S_IFREG
            && format != libc::S_IFDIR
            && format != libc::S_IFLNK
        {
            stat.mode = format | self.permissions;
            stat.rdev = rdev;
        }
    }
}

fn parse_kind(kind: &str) -> Option<(u32, u64)> {
    let device = |rest: &str| {
        let (major, minor) = rest.split_once(['-', ':'])?;
        Some(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?))
    };
    Some(match kind {
        "dir" => (libc::S_IFDIR, 0),
        "file" => (libc::S_IFREG, 0),
        "symlink" => (libc::S_IFLNK, 0),
        "pipe" => (libc::S_IFIFO, 0),
        "socket" => (libc::S_IFSOCK, 0),
        _ => {
            if let Some(rest) = kind.strip_prefix("block") {
                (libc::S_IFBLK, device(rest.trim_start_matches(['-', ':']))?)
            } else {
                (libc::S_IFCHR, device(kind.strip_prefix("char")?.trim_start_matches(['-', ':']))?)
            }
        }
    })
}

/// Whether an attribute carries owner and mode, in any spelling.
pub fn is_override_xattr(name: &OsStr) -> bool {
    OVERRIDE_XATTRS.iter().any(|known| name == *known)
}

/// Where `security.*` attributes of users are kept while owner and mode are overridden.
const OVERRIDE_SECURITY: &[u8] = b"user.containers.override_security.";
const SECURITY: &[u8] = b"security.";

/// The stored name of a `security.` attribute under an override; other names are themselves.
pub fn store_security(name: &OsStr) -> Option<std::ffi::OsString> {
    let rest = name.as_bytes().strip_prefix(SECURITY)?;
    Some(OsStr::from_bytes(&[OVERRIDE_SECURITY, rest].concat()).to_owned())
}

/// The shown name of a stored `security.` attribute.
pub fn show_security(name: &OsStr) -> Option<std::ffi::OsString> {
    let rest = name.as_bytes().strip_prefix(OVERRIDE_SECURITY)?;
    Some(OsStr::from_bytes(&[SECURITY, rest].concat()).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_read_back() {
        for format in [libc::S_IFDIR, libc::S_IFREG, libc::S_IFLNK, libc::S_IFIFO, libc::S_IFSOCK] {
            let value = Overridden { uid: 1, gid: 2, permissions: 0o4755, kind: Some((format, 0)) };
            assert_eq!(Overridden::parse(value.format().as_bytes()), Some(value));
        }
        for format in [libc::S_IFCHR, libc::S_IFBLK] {
            let value =
                Overridden { uid: 0, gid: 0, permissions: 0o600, kind: Some((format, rustix::fs::makedev(8, 300))) };
            assert_eq!(Overridden::parse(value.format().as_bytes()), Some(value));
        }
    }

    #[test]
    fn both_spellings_of_a_device_are_read() {
        let rdev = rustix::fs::makedev(8, 1);
        for text in ["0:0:0660:block-8-1", "0:0:0660:block8:1", "0:0:660:block:8:1"] {
            assert_eq!(Overridden::parse(text.as_bytes()).and_then(|o| o.kind), Some((libc::S_IFBLK, rdev)), "{text}");
        }
    }

    #[test]
    fn short_and_broken_values() {
        let short = Overridden::parse(b"0:0:555");
        assert_eq!(short, Some(Overridden { uid: 0, gid: 0, permissions: 0o555, kind: None }));
        for broken in ["", "0", "0:0", "a:0:755", "0:0:999", "0:0:755:gate", "0:0:755:char-1"] {
            assert_eq!(Overridden::parse(broken.as_bytes()), None, "{broken}");
        }
    }
}
