//! An archive becomes files below a directory that is open: for `cp`.
//!
//! Owns what an entry does there. Must not know where the archive comes from. Invariant: every name is looked up as one component below a
//! descriptor, and no link is followed, so nothing is written outside of the directory, whatever the archive or the directory holds.

use super::error::{Error, Result};
use lamina_fs::layer::{Archive, ArchiveAttributes, ArchiveEntry, ArchiveKind};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown, fsetxattr,
    futimens, linkat, mkdirat, mknodat, openat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

const FORMAT_MASK: u32 = 0o170_000;
/// Set-user-id, set-group-id: worth something only with their owner.
const SET_IDS: u32 = 0o6000;

/// What of an entry's attributes is taken over beside its permissions and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: files belong to whoever writes them.
    Own,
    /// Owner, set-user-id and extended attributes.
    All,
}

/// Writes an archive below `into`. With `top`, the first component of every name is this one instead; `.` leaves it out.
///
/// # Errors
/// A sentence that names the entry; what was written until then stays.
pub fn extract(input: impl BufRead, into: BorrowedFd<'_>, top: Option<&OsStr>, keep: Keep) -> Result<()> {
    let mut archive = Archive::new(input);
    let mut extractor = Extractor { root: into, keep, dirs: Vec::new() };
    let unread = |error: &dyn std::fmt::Display| Error::Layers { sentence: format!("the archive: {error}") };
    while let Some(entry) = archive.next_entry().map_err(|error| unread(&error))? {
        let path = renamed(OsStr::from_bytes(&entry.path), top);
        let file = extractor.entry(&entry, &path)?;
        let Some(file) = file else { continue };
        let mut file = File::from(file);
        loop {
            let data = archive.data().map_err(|error| unread(&error))?;
            if data.is_empty() {
                break;
            }
            file.write_all(data).map_err(|cause| Error::Unwritten { path: path.clone(), cause })?;
            let bytes = data.len();
            archive.consume(bytes);
        }
        extractor.dress(file.as_fd(), &entry.attributes).map_err(|errno| unwritten(&path, errno))?;
    }
    extractor.finish()
}

struct Extractor<'a> {
    root: BorrowedFd<'a>,
    keep: Keep,
    /// Dressed last: what is written into a directory changes its time, and its mode may forbid the writing.
    dirs: Vec<(PathBuf, OwnedFd, ArchiveAttributes)>,
}

impl Extractor<'_> {
    /// Makes one entry; answers the file whose data follows.
    fn entry(&mut self, entry: &ArchiveEntry, path: &Path) -> Result<Option<OwnedFd>> {
        let fail = |errno| unwritten(path, errno);
        let names = names(path)?;
        let Some((name, parents)) = names.split_last() else {
            // The directory itself was there before, and keeps what it has.
            return Ok(None);
        };
        let parent = self.parent(parents).map_err(fail)?;
        let at = parent.as_fd();
        if entry.kind == ArchiveKind::Dir {
            let dir = make_dir(at, name).map_err(fail)?;
            self.dirs.push((path.to_owned(), dir, entry.attributes.clone()));
            return Ok(None);
        }
        clear(at, name).map_err(fail)?;
        match &entry.kind {
            ArchiveKind::File { .. } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                return openat(at, *name, flags, Mode::RUSR | Mode::WUSR).map(Some).map_err(fail);
            }
            ArchiveKind::HardLink { target } => {
                let target = names_of(target)?;
                let Some((first, parents)) = target.split_last() else { return Err(fail(Errno::INVAL)) };
                let from = self.parent(parents).map_err(fail)?;
                linkat(&from, *first, at, *name, AtFlags::empty()).map_err(fail)?;
            }
            ArchiveKind::Symlink { target } => {
                symlinkat(OsStr::from_bytes(target), at, *name).map_err(fail)?;
                self.dress_name(at, name, &entry.attributes).map_err(fail)?;
            }
            ArchiveKind::Special { format, rdev } => {
                let kind = FileType::from_raw_mode(*format & FORMAT_MASK);
                let mode = Mode::from_raw_mode(entry.attributes.mode & 0o777);
                mknodat(at, *name, kind, mode, *rdev).map_err(fail)?;
                self.dress_name(at, name, &entry.attributes).map_err(fail)?;
            }
            ArchiveKind::Dir => {}
        }
        Ok(None)
    }

    /// The directory that these names lead to, none of them a link.
    fn parent(&self, names: &[&OsStr]) -> rustix::io::Result<OwnedFd> {
        let mut at = openat(self.root, ".", DIRECTORY, Mode::empty())?;
        for name in names {
            at = make_dir(at.as_fd(), name)?;
        }
        Ok(at)
    }

    fn dress(&self, file: BorrowedFd<'_>, attributes: &ArchiveAttributes) -> rustix::io::Result<()> {
        let mut mode = attributes.mode;
        match self.keep {
            Keep::Own => mode &= !SET_IDS,
            Keep::All => fchown(file, Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)))?,
        }
        // After the owner, whose change takes set-user-id away.
        fchmod(file, Mode::from_raw_mode(mode))?;
        if self.keep == Keep::All {
            for (name, value) in &attributes.xattrs {
                fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty())?;
            }
        }
        futimens(file, &times(attributes))
    }

    fn dress_name(&self, at: BorrowedFd<'_>, name: &OsStr, attributes: &ArchiveAttributes) -> rustix::io::Result<()> {
        if self.keep == Keep::All {
            let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
            chownat(at, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        utimensat(at, name, &times(attributes), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn finish(self) -> Result<()> {
        for (path, dir, attributes) in self.dirs.iter().rev() {
            self.dress(dir.as_fd(), attributes).map_err(|errno| unwritten(path, errno))?;
        }
        Ok(())
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Makes a directory, or opens the one that is there.
fn make_dir(at: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    match mkdirat(at, name, Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH) {
        Ok(()) | Err(Errno::EXIST) => openat(at, name, DIRECTORY, Mode::empty()),
        Err(errno) => Err(errno),
    }
}

/// Makes room for a file; a directory is not taken away for one.
fn clear(at: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    match statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => Err(Errno::ISDIR),
        Ok(_) => unlinkat(at, name, AtFlags::empty()),
    }
}

fn renamed(path: &OsStr, top: Option<&OsStr>) -> PathBuf {
    let Some(top) = top else { return PathBuf::from(path) };
    let mut names = Path::new(path).components();
    names.next();
    Path::new(top).join(names.as_path())
}

fn names(path: &Path) -> Result<Vec<&OsStr>> {
    names_of(path.as_os_str().as_bytes())
}

/// The names of a path in an archive: `.` and leading slashes say nothing, `..` is refused.
fn names_of(path: &[u8]) -> Result<Vec<&OsStr>> {
    let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
    match names.contains(&b"..".as_slice()) {
        true => {
            let path = String::from_utf8_lossy(path);
            Err(Error::Layers { sentence: format!("the archive: {path:?} leads out of its root") })
        }
        false => Ok(names.into_iter().map(OsStr::from_bytes).collect()),
    }
}

fn times(attributes: &ArchiveAttributes) -> Timestamps {
    let mtime = attributes.mtime;
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}

fn unwritten(path: &Path, errno: Errno) -> Error {
    Error::Unwritten { path: path.to_owned(), cause: errno.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lamina_fs::layer::{ArchiveWriter, Timestamp};
    use std::fs;

    const SHALLOW: u32 = 0o644;

    fn attributes(mode: u32) -> ArchiveAttributes {
        let mtime = Timestamp { seconds: 1_000_000_000, nanoseconds: 5 };
        ArchiveAttributes { mode, uid: 0, gid: 0, mtime, atime: None, xattrs: Vec::new() }
    }

    /// Unpacks these into a directory beside one that must stay empty; answers both, and how it ended.
    fn unpacked(entries: &[(&str, ArchiveKind)], top: Option<&str>) -> (tempfile::TempDir, Result<()>) {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("into")).unwrap();
        fs::create_dir(home.path().join("outside")).unwrap();
        let mut archive = ArchiveWriter::new(Vec::new());
        for (name, kind) in entries {
            let mode = if *kind == ArchiveKind::Dir { 0o750 } else { SHALLOW | 0o4000 };
            archive.entry(&ArchiveEntry::new(name.as_bytes().to_vec(), kind.clone(), attributes(mode))).unwrap();
            if let ArchiveKind::File { size, .. } = kind {
                archive.data(&vec![b'x'; *size as usize]).unwrap();
            }
        }
        let bytes = archive.finish().unwrap();
        let into = File::open(home.path().join("into")).unwrap();
        let done = extract(bytes.as_slice(), into.as_fd(), top.map(OsStr::new), Keep::Own);
        assert_eq!(fs::read_dir(home.path().join("outside")).unwrap().count(), 0, "nothing leads out");
        (home, done)
    }

    fn file(size: u64) -> ArchiveKind {
        ArchiveKind::File { size, pieces: None }
    }

    fn link(target: &str) -> ArchiveKind {
        ArchiveKind::Symlink { target: target.into() }
    }

    #[test]
    fn files_get_their_content_mode_and_time_and_no_privilege() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let hard = ArchiveKind::HardLink { target: b"d/f".to_vec() };
        let entries = [("d/", ArchiveKind::Dir), ("d/f", file(3)), ("d/link", link("f")), ("g", hard)];
        let (home, done) = unpacked(&entries, None);
        done.unwrap();
        let at = |name: &str| home.path().join("into").join(name);
        assert_eq!(fs::read(at("d/link")).unwrap(), b"xxx");
        let found = fs::metadata(at("g")).unwrap();
        assert_eq!((found.permissions().mode() & 0o7777, found.mtime(), found.nlink()), (SHALLOW, 1_000_000_000, 2));
        let dir = fs::metadata(at("d")).unwrap();
        assert_eq!((dir.permissions().mode() & 0o7777, dir.mtime_nsec()), (0o750, 5), "after what was written into it");
    }

    #[test]
    fn no_archive_writes_outside_of_the_directory() {
        let through = [("a", link("../outside")), ("a/b", file(1))];
        let refused = [
            &[("../outside/x", file(1))][..],
            &[("d/../../outside/x", file(1))],
            &through,
            &[("a", link("../outside")), ("a/", ArchiveKind::Dir), ("a/b", file(1))],
            &[("x", ArchiveKind::HardLink { target: b"../outside".to_vec() })],
        ];
        for entries in refused {
            let (_home, done) = unpacked(entries, None);
            assert!(done.is_err(), "{entries:?}");
        }
        let (home, done) = unpacked(&[("/rooted", file(1)), ("a", link("../outside/x")), ("a", file(2))], None);
        done.unwrap();
        assert_eq!(fs::read(home.path().join("into/a")).unwrap(), b"xx", "a link is replaced, not followed");
        assert!(home.path().join("into/rooted").exists());
    }

    #[test]
    fn another_name_takes_the_place_of_the_first() {
        let entries = [("parcel/", ArchiveKind::Dir), ("parcel/f", file(1))];
        for (top, expected) in [("other", "into/other/f"), (".", "into/f")] {
            let (home, done) = unpacked(&entries, Some(top));
            done.unwrap();
            assert!(home.path().join(expected).exists(), "{top}");
        }
        let (home, done) = unpacked(&[("parcel", file(1))], Some("other"));
        done.unwrap();
        assert!(home.path().join("into/other").is_file());
    }

    #[test]
    fn a_directory_is_not_taken_away_for_a_file() {
        let (_home, done) = unpacked(&[("d/f", file(1)), ("d", file(1))], None);
        assert!(done.unwrap_err().to_string().contains("cannot write d"));
    }
}
