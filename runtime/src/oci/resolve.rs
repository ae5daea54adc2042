//! Names inside the root filesystem, which belongs to the image and may be made to mislead.
//!
//! Invariant: every name is resolved by the kernel below a descriptor of the root (`openat2`, `RESOLVE_IN_ROOT`), what is found
//! is a descriptor, and nobody resolves the name a second time.

use crate::error::{Doing, Error, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows in one name. Source: path_resolution(7).
pub const LINKS_MAX: usize = 40;

/// Opens what the name means inside the root, without opening the file itself. `None` where there is nothing.
pub fn find(root: BorrowedFd<'_>, name: &Path) -> Result<Option<OwnedFd>> {
    match open(root, name, OFlags::PATH) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno).doing(|| format!("look up {} in the root filesystem", name.display())),
    }
}

/// Opens with flags of open(2). Retried as openat2(2) asks for when a rename nearby made the walk uncertain.
pub fn open(root: BorrowedFd<'_>, name: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(root, name, flags | OFlags::CLOEXEC, Mode::empty(), inside) {
            Err(Errno::AGAIN) => {}
            outcome => return outcome,
        }
    }
}

/// The name as an absolute one without `.` and `..`, which cannot lead above the root.
pub fn lexical(name: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in name.components() {
        match component {
            Component::Normal(word) => clean.push(word),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// What the kernel knows of an open file.
pub fn stat(fd: impl AsFd) -> Result<Stat> {
    fstat(fd).doing(|| "look at an open file".to_owned())
}

/// Whether it is a directory.
pub fn is_directory(fd: impl AsFd) -> Result<bool> {
    Ok(FileType::from_raw_mode(stat(fd)?.st_mode) == FileType::Directory)
}

/// Whether an open file lies on a filesystem with that magic number (`f_type` of statfs(2)).
pub fn is_on(fd: impl AsFd, magic: i64) -> Result<bool> {
    let found = rustix::fs::fstatfs(fd).doing(|| "look at a filesystem".to_owned())?;
    Ok(found.f_type as i64 == magic)
}

/// The host's procfs, and proof that it is one: a file of that name elsewhere could have been put there (CVE-2019-19921).
pub fn host_proc() -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = openat(rustix::fs::CWD, "/proc", flags, Mode::empty()).doing(|| "open /proc".to_owned())?;
    match is_on(&proc, libc::PROC_SUPER_MAGIC)? {
        true => Ok(proc),
        false => Err(Error::invalid("/proc", "is not a procfs; mount one: mount -t proc proc /proc")),
    }
}

/// Writes a file of procfs, and only of procfs: nothing mounted over it is followed.
pub fn write_proc(proc: BorrowedFd<'_>, name: &str, text: &str) -> Result<()> {
    let doing = || format!("write {text:?} to /proc/{name}");
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
    let file = openat2(proc, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), inside).doing(doing)?;
    rustix::io::write(&file, text.as_bytes()).doing(doing)?;
    Ok(())
}

/// Whether a name exists below a directory, links not followed.
pub fn exists(directory: BorrowedFd<'_>, name: &str) -> bool {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_lead_above_the_root() {
        assert_eq!(lexical(Path::new("../../etc/./passwd")), Path::new("/etc/passwd"));
        assert_eq!(lexical(Path::new("/a/../../b/..")), Path::new("/"));
    }
}
