//! The inode number that a copied-up file brought along.
//!
//! Owns the mark `overlay.lamina.origin` (the number in decimal) and, for files that take no attribute,
//! `WORKDIR/lamina/origin/UPPER-INODE`, a symbolic link to `NUMBER.SECONDS.NANOSECONDS` of the upper file's birth. Must not
//! know inodes. Invariant: a record that is not of this very file is never believed.

use crate::error::Result;
use crate::layer::Upper;
use crate::sys::rename::{self, At};
use crate::sys::{open, stat::Stat};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Name of the mark, without the namespace.
const MARK: &str = "lamina.origin";
const ORIGIN_DIR: &str = "origin";

/// The stored numbers of one work directory.
#[derive(Debug)]
pub struct Origins {
    /// Some file's number is in the directory.
    recorded: AtomicBool,
}

impl Origins {
    /// Looks whether earlier mounts left records.
    pub fn load(upper: &Upper) -> Result<Self> {
        let recorded = match upper.work().existing_own_dir()? {
            Some(own) => open::exists(own, OsStr::new(ORIGIN_DIR))?,
            None => false,
        };
        Ok(Origins { recorded: AtomicBool::new(recorded) })
    }

    /// Stores the number that a built file will show.
    pub fn store(&self, upper: &Upper, fd: BorrowedFd<'_>, found: &Stat, number: u64) -> Result<()> {
        match upper.set_mark(fd, MARK, number.to_string().as_bytes())? {
            true => Ok(()),
            false => self.record(upper, found, number),
        }
    }

    /// Keeps the stored number of an upper file where it can be read whatever the file's mode is.
    pub fn keep_readable(&self, upper: &Upper, fd: BorrowedFd<'_>, found: &Stat) -> Result<()> {
        match self.read(upper, fd, found)? {
            Some(number) => self.record(upper, found, number),
            None => Ok(()),
        }
    }

    fn record(&self, upper: &Upper, found: &Stat, number: u64) -> Result<()> {
        let dir = origin_dir(upper)?;
        let built = upper.work().temporary();
        open::symlink(&record(found, number), built.dir(), built.name())?;
        rename::replace(built.at(), At { dir: dir.as_fd(), name: &record_name(found) })?;
        built.published();
        self.recorded.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The stored number of an upper file, where it has one.
    pub fn read(&self, upper: &Upper, fd: BorrowedFd<'_>, found: &Stat) -> Result<Option<u64>> {
        if let Some(value) = upper.mark(fd, MARK)? {
            return Ok(std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()));
        }
        if !self.recorded.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let dir = origin_dir(upper)?;
        match open::read_link(dir.as_fd(), &record_name(found)) {
            Ok(target) => Ok(parse_record(&target, found)),
            Err(error) if error.is(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The upper file is gone: so is its record.
    pub fn forget(&self, upper: &Upper, ino: u64) -> Result<()> {
        match self.recorded.load(Ordering::Relaxed) {
            true => upper.remove_record(origin_dir(upper)?.as_fd(), &name_of(ino)),
            false => Ok(()),
        }
    }
}

fn origin_dir(upper: &Upper) -> Result<OwnedFd> {
    let own = upper.work().own_dir()?;
    match open::make_dir(own, OsStr::new(ORIGIN_DIR), 0o700) {
        Err(error) if !error.is(libc::EEXIST) => Err(error),
        _ => open::open_dir(own, OsStr::new(ORIGIN_DIR)),
    }
}

fn name_of(ino: u64) -> OsString {
    OsString::from(format!("{ino:x}"))
}

fn record_name(found: &Stat) -> OsString {
    name_of(found.ino)
}

fn record(found: &Stat, number: u64) -> OsString {
    OsString::from(format!("{number}.{}.{}", found.btime.seconds, found.btime.nanoseconds))
}

fn parse_record(target: &[u8], found: &Stat) -> Option<u64> {
    let number = std::str::from_utf8(target).ok()?.split('.').next()?.parse().ok()?;
    // Inode numbers are given out again: only the birth time tells that the file is the same.
    (record(found, number).as_encoded_bytes() == target).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::stat::Timestamp;

    #[test]
    fn a_record_of_another_file_is_not_believed() {
        let file = std::fs::File::open("/").expect("opens");
        let mut found = crate::sys::stat::stat_fd(file.as_fd()).expect("stats");
        let target = record(&found, 77);
        assert_eq!(parse_record(target.as_encoded_bytes(), &found), Some(77));
        found.btime = Timestamp { seconds: 1, nanoseconds: 2 };
        assert_eq!(parse_record(target.as_encoded_bytes(), &found), None);
    }
}
