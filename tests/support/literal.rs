//! Tree literals: a directory tree as a list of entries, parents first, and the code that builds it. It owns the on-disk spelling of
//! whiteouts and opaque marks as the formats define them. Invariant: modes and times of directories are set last, so that they hold.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

/// The spellings of "nothing below this directory shows".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opaque {
    /// `trusted.overlay.opaque=y`, the privileged kernel's.
    Trusted,
    /// `user.overlay.opaque=y`, the rootless kernel's.
    User,
    /// `user.fuseoverlayfs.opaque=y`, fuse-overlayfs's.
    FuseOverlayfs,
    /// The file `.wh..wh..opq`, of AUFS and of container images.
    File,
}

#[derive(Debug, Clone)]
enum What {
    File(Vec<u8>),
    Sparse { size: u64, pieces: Vec<(u64, Vec<u8>)> },
    Dir,
    Symlink(String),
    HardLink(String),
    Node { kind: FileType, major: u32, minor: u32 },
    XattrWhiteout { prefix: &'static str },
}

impl What {
    /// The mode of what gives none: the same under every umask.
    fn default_mode(&self) -> Option<u32> {
        match self {
            What::Dir => Some(0o755),
            What::Symlink(_) | What::HardLink(_) => None,
            _ => Some(0o644),
        }
    }
}

/// One line of a tree literal.
#[derive(Debug, Clone)]
pub struct Entry {
    path: String,
    what: What,
    mode: Option<u32>,
    owner: Option<(u32, u32)>,
    xattrs: Vec<(String, Vec<u8>)>,
    mtime: Option<i64>,
    opaque: Option<Opaque>,
}

fn entry(path: &str, what: What) -> Entry {
    Entry { path: path.into(), what, mode: None, owner: None, xattrs: Vec::new(), mtime: None, opaque: None }
}

/// A regular file.
pub fn file(path: &str, content: impl AsRef<[u8]>) -> Entry {
    entry(path, What::File(content.as_ref().to_vec()))
}

/// A regular file of `size` bytes of which only `pieces` (offset, data) are written.
pub fn sparse(path: &str, size: u64, pieces: &[(u64, &[u8])]) -> Entry {
    entry(path, What::Sparse { size, pieces: pieces.iter().map(|(at, data)| (*at, data.to_vec())).collect() })
}

/// A directory.
pub fn dir(path: &str) -> Entry {
    entry(path, What::Dir)
}

/// A symbolic link.
pub fn symlink(path: &str, target: &str) -> Entry {
    entry(path, What::Symlink(target.into()))
}

/// Another name of an earlier entry.
pub fn link(path: &str, earlier: &str) -> Entry {
    entry(path, What::HardLink(earlier.into()))
}

/// A named pipe.
pub fn fifo(path: &str) -> Entry {
    entry(path, What::Node { kind: FileType::Fifo, major: 0, minor: 0 })
}

/// A character (`'c'`) or block (`'b'`) device.
pub fn device(path: &str, kind: char, major: u32, minor: u32) -> Entry {
    let kind = if kind == 'b' { FileType::BlockDevice } else { FileType::CharacterDevice };
    entry(path, What::Node { kind, major, minor })
}

/// A whiteout as the kernel writes it: character device 0:0.
pub fn whiteout(path: &str) -> Entry {
    device(path, 'c', 0, 0)
}

/// A whiteout as an xattr on an empty file; marks the parent `opaque=x`. `prefix` is `trusted.` or `user.`.
pub fn xattr_whiteout(path: &str, prefix: &'static str) -> Entry {
    entry(path, What::XattrWhiteout { prefix })
}

/// A whiteout as container images have it: `.wh.NAME` beside the place of NAME.
pub fn dot_whiteout(path: &str) -> Entry {
    let (parent, name) = split(path);
    file(&join(parent, &format!(".wh.{name}")), "")
}

impl Entry {
    /// Permission bits, exactly.
    pub fn mode(mut self, mode: u32) -> Entry {
        self.mode = Some(mode);
        self
    }

    /// Owner and group; needs root.
    pub fn owner(mut self, uid: u32, gid: u32) -> Entry {
        self.owner = Some((uid, gid));
        self
    }

    /// One extended attribute.
    pub fn xattr(mut self, name: &str, value: impl AsRef<[u8]>) -> Entry {
        self.xattrs.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// Modification (and access) time in seconds.
    pub fn mtime(mut self, seconds: i64) -> Entry {
        self.mtime = Some(seconds);
        self
    }

    /// Marks a directory opaque.
    pub fn opaque(mut self, format: Opaque) -> Entry {
        self.opaque = Some(format);
        self
    }

    fn create(&self, root: &Path) -> std::io::Result<()> {
        let path = root.join(&self.path);
        match &self.what {
            What::File(content) => std::fs::write(&path, content),
            What::Sparse { size, pieces } => {
                let file = File::create(&path)?;
                file.set_len(*size)?;
                pieces.iter().try_for_each(|(at, data)| file.write_all_at(data, *at))
            }
            What::Dir if self.path == "." => Ok(()),
            What::Dir => std::fs::create_dir(&path),
            What::Symlink(target) => std::os::unix::fs::symlink(target, &path),
            What::HardLink(earlier) => std::fs::hard_link(root.join(earlier), &path),
            What::Node { kind, major, minor } => {
                let device = rustix::fs::makedev(*major, *minor);
                Ok(rustix::fs::mknodat(CWD, &path, *kind, Mode::from_raw_mode(0o644), device)?)
            }
            What::XattrWhiteout { prefix } => {
                File::create(&path)?;
                set_xattr(&path, &format!("{prefix}overlay.whiteout"), b"y")?;
                set_xattr(path.parent().unwrap_or(root), &format!("{prefix}overlay.opaque"), b"x")
            }
        }
    }

    fn dress(&self, root: &Path) -> std::io::Result<()> {
        let path = root.join(&self.path);
        match self.opaque {
            Some(Opaque::Trusted) => set_xattr(&path, "trusted.overlay.opaque", b"y")?,
            Some(Opaque::User) => set_xattr(&path, "user.overlay.opaque", b"y")?,
            Some(Opaque::FuseOverlayfs) => set_xattr(&path, "user.fuseoverlayfs.opaque", b"y")?,
            Some(Opaque::File) => std::fs::write(path.join(".wh..wh..opq"), b"")?,
            None => {}
        }
        // chown drops capabilities, and a mode can forbid setting attributes: in this order.
        if let Some((uid, gid)) = self.owner {
            std::os::unix::fs::lchown(&path, Some(uid), Some(gid))?;
        }
        for (name, value) in &self.xattrs {
            set_xattr(&path, name, value)?;
        }
        if let Some(mode) = self.mode.or(self.what.default_mode()) {
            std::fs::set_permissions(&path, Permissions::from_mode(mode))?;
        }
        Ok(())
    }

    fn date(&self, root: &Path) -> std::io::Result<()> {
        self.mtime.map_or(Ok(()), |seconds| set_mtime(&root.join(&self.path), seconds))
    }
}

/// Builds `entries` under `root`; `dir(".")` dresses the root itself.
pub fn plant(root: &Path, entries: &[Entry]) {
    let all = |step: fn(&Entry, &Path) -> std::io::Result<()>, what: &str| {
        for entry in entries {
            step(entry, root).unwrap_or_else(|error| panic!("{what} {}/{}: {error}", root.display(), entry.path));
        }
    };
    all(Entry::create, "create");
    all(Entry::dress, "dress");
    // Times last, leaves and directories alike: everything above touches a parent's.
    all(Entry::date, "date");
}

/// Sets access and modification time of `path` itself, whatever it is.
pub fn set_mtime(path: &Path, seconds: i64) -> std::io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// lsetxattr(2).
pub fn set_xattr(path: &Path, name: &str, value: &[u8]) -> std::io::Result<()> {
    Ok(rustix::fs::lsetxattr(path, OsStr::new(name), value, XattrFlags::empty())?)
}

/// lgetxattr(2); `None` when the attribute is absent.
pub fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 65536];
    let length = rustix::fs::lgetxattr(path, OsStr::new(name), value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}

/// `chown` by numbers, not following a link.
pub fn chown(path: &Path, uid: u32, gid: u32) -> std::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    Ok(rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.into() } else { format!("{parent}/{name}") }
}
