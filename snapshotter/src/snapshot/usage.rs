//! Counting what a layer takes.
//!
//! Owns the walk; the one module here that looks at a disk. Must not know records. Invariant: the walk follows no link and leaves
//! no filesystem, and files that go while it walks are no error.

use super::Usage;
use crate::error::{Error, Result};
use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// st_blocks counts these, whatever the filesystem's own blocks are; see stat(2).
const BLOCK_BYTES: u64 = 512;

/// What the tree at `root` takes, its root directory included.
///
/// # Errors
/// [`Error::Io`].
pub fn count(root: &Path) -> Result<Usage> {
    let mut usage = Usage::default();
    let mut linked = HashSet::new();
    let mut add = |file: &Metadata| {
        if file.is_dir() || file.nlink() == 1 || linked.insert((file.dev(), file.ino())) {
            usage.inodes += 1;
            usage.size += file.blocks() * BLOCK_BYTES;
        }
    };
    let top = fs::symlink_metadata(root).map_err(Error::io("look at", root))?;
    add(&top);
    let mut waiting: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        let Some(entries) = unless_gone(fs::read_dir(&directory), &directory)? else { continue };
        for entry in entries {
            let Some(entry) = unless_gone(entry, &directory)? else { continue };
            let Some(file) = unless_gone(entry.metadata(), &directory)? else { continue };
            if file.dev() != top.dev() {
                continue;
            }
            add(&file);
            if file.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Ok(usage)
}

fn unless_gone<T>(result: io::Result<T>, path: &Path) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("count", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_links_count_once_and_links_are_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        fs::write(path("a"), vec![1; 10_000]).unwrap();
        fs::hard_link(path("a"), path("b")).unwrap();
        fs::create_dir(path("d")).unwrap();
        std::os::unix::fs::symlink("/usr", path("d/link")).unwrap();
        let usage = count(home.path()).unwrap();
        assert_eq!(usage.inodes, 4);
        assert!(usage.size >= 10_000 && usage.size < 100_000, "{usage:?}");
    }
}
