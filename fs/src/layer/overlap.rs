//! Whether directories that must be apart lie inside each other.
//!
//! Invariant: compares device and inode numbers along `..`, never path texts, so links and bind mounts are seen through.

use super::setup::SetupError;
use crate::error::Result;
use crate::sys::stat;
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// Levels of directories that are walked upward.
const DEPTH_MAX: usize = 4096;

struct Place<'a> {
    path: &'a Path,
    identity: (u64, u64),
    ancestors: Vec<(u64, u64)>,
}

impl<'a> Place<'a> {
    fn new(path: &'a Path, fd: BorrowedFd<'_>) -> Result<Self> {
        let ancestors = ancestors(fd)?;
        Ok(Place { path, identity: ancestors[0], ancestors })
    }

    fn inside(&self, other: &Place<'_>) -> bool {
        self.ancestors.contains(&other.identity)
    }

    fn overlaps(&self, other: &Place<'_>) -> bool {
        self.inside(other) || other.inside(self)
    }
}

/// The directory itself first, then each directory above it.
fn ancestors(fd: BorrowedFd<'_>) -> Result<Vec<(u64, u64)>> {
    let identity = |fd: BorrowedFd<'_>| stat::stat_fd(fd).map(|found| (found.dev, found.ino));
    let mut found = vec![identity(fd)?];
    let mut current = crate::sys::open::duplicate(fd)?;
    while found.len() < DEPTH_MAX {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(parent) = rustix::fs::openat(&current, "..", flags, Mode::empty()) else { break };
        let next = identity(parent.as_fd())?;
        if found.last() == Some(&next) {
            break;
        }
        found.push(next);
        current = parent;
    }
    Ok(found)
}

/// Checks that upper, work and lowers are apart and that files can move between upper and work.
pub fn check_overlap(
    upper: (&Path, BorrowedFd<'_>),
    work: (&Path, BorrowedFd<'_>),
    lowers: &[(PathBuf, BorrowedFd<'_>)],
) -> Result<(), SetupError> {
    let upper_fail = |error| SetupError::Upper { path: upper.0.to_owned(), error };
    let work_fail = |error| SetupError::Work { path: work.0.to_owned(), error };
    let upper_place = Place::new(upper.0, upper.1).map_err(upper_fail)?;
    let work_place = Place::new(work.0, work.1).map_err(work_fail)?;
    let overlap = |what, a: &Place<'_>, other, b: &Place<'_>| SetupError::Overlap {
        what,
        path: a.path.to_owned(),
        other,
        other_path: b.path.to_owned(),
    };
    if upper_place.overlaps(&work_place) {
        return Err(overlap("work directory", &work_place, "upper directory", &upper_place));
    }
    for (path, fd) in lowers {
        let lower = Place::new(path, *fd).map_err(|error| SetupError::Lower { path: path.clone(), error })?;
        if lower.identity == upper_place.identity {
            return Err(SetupError::UpperIsLower { upper: upper.0.to_owned(), lower: path.clone() });
        }
        if upper_place.overlaps(&lower) {
            return Err(overlap("upper directory", &upper_place, "lower layer", &lower));
        }
        if work_place.overlaps(&lower) {
            return Err(overlap("work directory", &work_place, "lower layer", &lower));
        }
    }
    let elsewhere = upper_place.identity.0 != work_place.identity.0 || mount_id(upper.1) != mount_id(work.1);
    match elsewhere {
        true => Err(SetupError::WorkElsewhere { work: work.0.to_owned(), upper: upper.0.to_owned() }),
        false => Ok(()),
    }
}

/// The mount that a descriptor was opened through; `None` before Linux 5.8.
fn mount_id(fd: BorrowedFd<'_>) -> Option<u64> {
    let raw = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
    Some(raw.stx_mnt_id).filter(|_| StatxFlags::from_bits_retain(raw.stx_mask).contains(StatxFlags::MNT_ID))
}
