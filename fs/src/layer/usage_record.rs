//! What the upper layer took when its last mount ended, written down in the work directory.
//!
//! Owns the record, its text (docs/format.md) and its place. Must not know how it is counted. Invariant: it is read once, and gone before
//! the tree changes.

use super::upper::Upper;
use crate::error::Result;
use crate::sys::rename::At;
use crate::sys::stat::Stat;
use crate::sys::{open, rename, stat};
use std::ffi::OsStr;

/// The symbolic link in `WORKDIR/lamina` whose target is a `UsageRecord`.
const USAGE_RECORD: &str = "usage";

/// What the tree took when its last mount ended, without the whiteout that others are linked to: `BLOCKS.INODES.WORK`, and behind
/// a further `.` the boot at which that was, where what was written since is not known to be on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRecord {
    /// Blocks of 512 bytes.
    pub blocks: i64,
    /// Inodes.
    pub inodes: i64,
    /// `WorkDir::birth` then.
    pub work: String,
    /// See random(4), `boot_id`; `None`: it holds over a power cut.
    pub boot: Option<String>,
}

impl UsageRecord {
    fn text(&self) -> String {
        let boot = self.boot.as_ref().map(|boot| format!(".{boot}")).unwrap_or_default();
        format!("{}.{}.{}{boot}", self.blocks, self.inodes, self.work)
    }

    fn parse(text: &[u8]) -> Option<UsageRecord> {
        let mut parts = std::str::from_utf8(text).ok()?.splitn(4, '.');
        let (blocks, inodes) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let work = parts.next()?.to_owned();
        Some(UsageRecord { blocks, inodes, work, boot: parts.next().map(str::to_owned) })
    }
}

impl Upper {
    /// Writes down what the tree takes, for `take_usage` of the next mount. Returns the record as it is now.
    pub fn keep_usage(&self, record: &UsageRecord) -> Result<Option<Stat>> {
        let own = self.work().own_dir()?;
        let built = self.work().temporary();
        open::symlink(OsStr::new(&record.text()), built.dir(), built.name())?;
        rename::replace(built.at(), At { dir: own, name: OsStr::new(USAGE_RECORD) })?;
        built.published();
        if record.boot.is_none() {
            stat::sync(own, false)?;
        }
        stat::stat_at(own, OsStr::new(USAGE_RECORD))
    }

    /// Whether what was written down is still this very record: no mount has taken it.
    pub fn keeps_usage(&self, record: &Stat) -> Result<bool> {
        let found = stat::stat_at(self.work().own_dir()?, OsStr::new(USAGE_RECORD))?;
        Ok(found.is_some_and(|found| (found.ino, found.btime) == (record.ino, record.btime)))
    }

    /// What was written down last, once: it holds no longer when the tree changes.
    pub fn take_usage(&self) -> Result<Option<UsageRecord>> {
        let Some(own) = self.work().existing_own_dir()? else { return Ok(None) };
        let kept = match open::read_link(own, OsStr::new(USAGE_RECORD)) {
            Err(error) if error.is(libc::ENOENT) => return Ok(None),
            other => UsageRecord::parse(&other?),
        };
        open::unlink(own, OsStr::new(USAGE_RECORD))?;
        if kept.as_ref().is_some_and(|kept| kept.boot.is_none()) {
            // After a power cut it must not be there again, beside a tree that has changed.
            stat::sync(own, false)?;
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_record_is_read_as_it_was_written() {
        for boot in [None, Some("0b0ac9b1-84a9-4c31".to_owned())] {
            let record = UsageRecord { blocks: 24, inodes: 3, work: "7-1-2".to_owned(), boot };
            assert_eq!(UsageRecord::parse(record.text().as_bytes()), Some(record));
        }
        for broken in ["", "7", "7.", "x.1.w", "7.1x.w", "7.1"] {
            assert_eq!(UsageRecord::parse(broken.as_bytes()), None, "{broken}");
        }
    }
}
