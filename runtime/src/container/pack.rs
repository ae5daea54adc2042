//! Files of the host as an archive, for what goes into a container.
//!
//! Invariant: a link is written as a link: what it leads to is not looked at.

use super::error::{Error, Result};
use lamina_fs::layer::{ArchiveAttributes, ArchiveEntry, ArchiveKind, ArchiveWriter, Timestamp};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

/// Levels of directories that are copied.
const DEPTH_MAX: usize = 256;
/// Bytes of a file that are in memory at once.
const DATA_BYTES: usize = 256 << 10;
const FORMAT_MASK: u32 = 0o170_000;

/// Writes a file, or a directory and everything in it, as an archive in which it is called `name`: `.` for its content alone.
///
/// # Errors
/// What cannot be read or written.
pub(super) fn pack(path: &Path, name: &OsStr, follow: bool, out: impl Write) -> Result<()> {
    let mut archive = ArchiveWriter::new(out);
    let found = if follow { fs::metadata(path) } else { fs::symlink_metadata(path) };
    entry(&mut archive, path, name.as_bytes().to_vec(), &found.map_err(Error::io("look at", path))?, 0)?;
    archive.finish().map(drop).map_err(unwritten(path))
}

fn entry<W: Write>(
    archive: &mut ArchiveWriter<W>,
    path: &Path,
    name: Vec<u8>,
    found: &Metadata,
    depth: usize,
) -> Result<()> {
    if depth > DEPTH_MAX {
        return Err(Error::TooDeep { path: path.to_owned(), max: DEPTH_MAX });
    }
    let kind = found.file_type();
    if kind.is_socket() {
        return Ok(());
    }
    if kind.is_dir() {
        write(archive, path, [&name[..], b"/"].concat(), ArchiveKind::Dir, found)?;
        let mut names = Vec::new();
        for child in fs::read_dir(path).map_err(Error::io("read directory", path))? {
            names.push(child.map_err(Error::io("read directory", path))?.file_name());
        }
        names.sort_unstable();
        for child in names {
            let path = path.join(&child);
            let found = fs::symlink_metadata(&path).map_err(Error::io("look at", &path))?;
            entry(archive, &path, [&name[..], b"/", child.as_bytes()].concat(), &found, depth + 1)?;
        }
        return Ok(());
    }
    if kind.is_symlink() {
        let target = fs::read_link(path).map_err(Error::io("read", path))?;
        let target = target.into_os_string().as_bytes().to_vec();
        return write(archive, path, name, ArchiveKind::Symlink { target }, found);
    }
    if !kind.is_file() {
        let special = ArchiveKind::Special { format: found.mode() & FORMAT_MASK, rdev: found.rdev() };
        return write(archive, path, name, special, found);
    }
    write(archive, path, name, ArchiveKind::File { size: found.size(), pieces: None }, found)?;
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let mut buffer = vec![0; DATA_BYTES];
    loop {
        match file.read(&mut buffer).map_err(Error::io("read", path))? {
            0 => return Ok(()),
            read => archive.data(&buffer[..read]).map_err(unwritten(path))?,
        }
    }
}

fn write<W: Write>(
    archive: &mut ArchiveWriter<W>,
    path: &Path,
    name: Vec<u8>,
    kind: ArchiveKind,
    found: &Metadata,
) -> Result<()> {
    let mtime = Timestamp { seconds: found.mtime(), nanoseconds: found.mtime_nsec() as u32 };
    let (mode, uid, gid) = (found.mode() & 0o7777, found.uid(), found.gid());
    let attributes = ArchiveAttributes { mode, uid, gid, mtime, atime: None, xattrs: Vec::new() };
    archive.entry(&ArchiveEntry::new(name, kind, attributes)).map_err(unwritten(path))
}

fn unwritten(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |cause| Error::Unwritten { path, cause }
}
