//! Hard links of lower files stay one file: which lower file became which upper file, kept in the work directory.
//!
//! Owns `WORKDIR/index` in the format of the kernel's overlayfs (`index=on`: a hard link to the upper file, named by the
//! hexadecimal `ovl_fb` of the lower one), `WORKDIR/lamina/links` for filesystems without file handles,
//! `WORKDIR/lamina/hidden` (how many names of a lower file are gone) and `WORKDIR/lamina/nlink` (the link count of a copy that
//! takes no attribute). Must not know inodes. Invariant: the entry of a file
//! is there before any of its names shows the copy.

use crate::error::Result;
use crate::layer::{Layer, Upper, WorkDir};
use crate::sys::handle::{FileHandle, file_handle};
use crate::sys::open;
use crate::sys::rename;
use crate::sys::stat::{Stat, stat_at, stat_fd};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Version, magic, length, flags and type of `struct ovl_fb` (fs/overlayfs/overlayfs.h), then the UUID.
const FB_HEADER_BYTES: usize = 21;
const FB_MAGIC: u8 = 0xfb;
/// `OVL_FH_FLAG_BIG_ENDIAN`: the handle's words are in this machine's order.
const FB_FLAGS: u8 = if cfg!(target_endian = "big") { 1 } else { 0 };
/// Start of the hexadecimal form of every `ovl_fb`: version 0 and the magic.
const FB_HEX_START: &str = "00fb";

/// What is known of a lower file with several names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linked {
    /// It was copied up: the entry is a hard link to the upper file.
    CopiedUp,
    /// It was not, and this many of its names are gone.
    Hidden(u32),
}

/// The index of one work directory.
#[derive(Debug, Default)]
pub struct LinkIndex {
    entries: Mutex<HashMap<Arc<str>, Linked>>,
    /// Inode numbers of the upper files, to find the key of one.
    by_ino: Mutex<HashMap<u64, Arc<str>>>,
}

const INDEX_DIR: &str = "index";
const LINKS_DIR: &str = "links";
const HIDDEN_DIR: &str = "hidden";
const NLINK_DIR: &str = "nlink";

impl LinkIndex {
    /// Reads what earlier mounts left.
    pub fn load(work: &WorkDir) -> Result<Self> {
        let index = LinkIndex::default();
        if let Some(dir) = work.existing_side_dir(INDEX_DIR)? {
            index.load_copies(dir.as_fd())?;
        }
        let Some(own) = work.existing_own_dir()? else { return Ok(index) };
        if open::exists(own, OsStr::new(LINKS_DIR))? {
            index.load_copies(open::open_dir(own, OsStr::new(LINKS_DIR))?.as_fd())?;
        }
        if open::exists(own, OsStr::new(HIDDEN_DIR))? {
            let dir = open::open_dir(own, OsStr::new(HIDDEN_DIR))?;
            for entry in crate::layer::list(dir.as_fd())? {
                let count = read_count(dir.as_fd(), &entry.name)?.unwrap_or_default();
                if let Ok(key) = entry.name.into_string() {
                    index.entries.lock().insert(Arc::from(key), Linked::Hidden(count.unsigned_abs()));
                }
            }
        }
        Ok(index)
    }

    fn load_copies(&self, dir: BorrowedFd<'_>) -> Result<()> {
        for entry in crate::layer::list(dir)? {
            let Some(found) = stat_at(dir, &entry.name)? else { continue };
            // The kernel also keeps directories, for NFS, and whiteouts of orphans here.
            if found.is_dir() || found.is_whiteout_device() {
                continue;
            }
            if let Ok(key) = entry.name.into_string() {
                self.note_copy(&Arc::from(key), found.ino);
            }
        }
        Ok(())
    }

    fn note_copy(&self, key: &Arc<str>, ino: u64) {
        self.entries.lock().insert(key.clone(), Linked::CopiedUp);
        self.by_ino.lock().insert(ino, key.clone());
    }

    /// The key of the lower file that an upper one was.
    pub fn key_of_copy(&self, ino: u64) -> Option<Arc<str>> {
        self.by_ino.lock().get(&ino).cloned()
    }

    /// Whether nothing is known of any file, so that no key needs to be computed.
    pub fn is_empty(&self) -> bool {
        self.entries.lock().is_empty()
    }

    /// What is known of a file.
    pub fn get(&self, key: &str) -> Option<Linked> {
        self.entries.lock().get(key).copied()
    }

    /// A reference to the upper file that a lower one became.
    pub fn open(&self, work: &WorkDir, key: &str) -> Result<OwnedFd> {
        open::open_path(entry_dir(work, key)?.as_fd(), OsStr::new(key))
    }

    /// Notes which upper file a lower one becomes; `file` is any descriptor of it.
    pub fn add(&self, upper: &Upper, key: &Arc<str>, file: BorrowedFd<'_>) -> Result<()> {
        let dir = entry_dir(upper.work(), key)?;
        match upper.link(file, dir.as_fd(), OsStr::new(&**key)) {
            Err(error) if error.is(libc::EEXIST) => {
                // A copy-up that a crash cut short: its file was never shown.
                upper.remove_record(dir.as_fd(), OsStr::new(&**key))?;
                upper.link(file, dir.as_fd(), OsStr::new(&**key))?;
            }
            other => other?,
        }
        self.drop_hidden(upper, key)?;
        self.note_copy(key, stat_fd(file)?.ino);
        Ok(())
    }

    /// The last name is gone, or the copy-up failed.
    pub fn remove(&self, upper: &Upper, key: &str) -> Result<()> {
        let dir = entry_dir(upper.work(), key)?;
        upper.remove_record(dir.as_fd(), OsStr::new(key))?;
        self.entries.lock().remove(key);
        self.by_ino.lock().retain(|_, known| **known != *key);
        drop_record(upper, NLINK_DIR, key)
    }

    /// Notes how many names of a lower file are gone.
    pub fn hide(&self, upper: &Upper, key: &Arc<str>, count: u32) -> Result<()> {
        put_record(upper, HIDDEN_DIR, key, &count.to_string())?;
        self.entries.lock().insert(key.clone(), Linked::Hidden(count));
        Ok(())
    }

    /// Writes the union's link count of a copy, relative to the copy's own.
    pub fn store_nlink(&self, upper: &Upper, fd: BorrowedFd<'_>, key: &str, delta: i32) -> Result<()> {
        match upper.set_mark(fd, NLINK_MARK, format!("U{delta:+}").as_bytes())? {
            true => drop_record(upper, NLINK_DIR, key),
            false => put_record(upper, NLINK_DIR, key, &delta.to_string()),
        }
    }

    /// Keeps the link count of a copy where it can be read whatever the copy's mode is.
    pub fn keep_readable(&self, upper: &Upper, key: &str, delta: i32) -> Result<()> {
        put_record(upper, NLINK_DIR, key, &delta.to_string())
    }

    /// Reads the union's link count of a copy, relative to the copy's own. A record is younger than an attribute: it was
    /// written because the attribute could not be.
    pub fn stored_nlink(
        &self,
        upper: &Upper,
        fd: BorrowedFd<'_>,
        key: &str,
        upper_nlink: u32,
        lower_nlink: Option<u32>,
    ) -> Result<Option<i32>> {
        if let Some(own) = upper.work().existing_own_dir()?
            && open::exists(own, OsStr::new(NLINK_DIR))?
        {
            let dir = open::open_dir(own, OsStr::new(NLINK_DIR))?;
            if let Some(delta) = read_count(dir.as_fd(), OsStr::new(key))? {
                return Ok(Some(delta));
            }
        }
        Ok(upper.mark(fd, NLINK_MARK)?.and_then(|value| parse_nlink(&value, upper_nlink, lower_nlink)))
    }

    fn drop_hidden(&self, upper: &Upper, key: &str) -> Result<()> {
        match self.get(key) {
            Some(Linked::Hidden(_)) => drop_record(upper, HIDDEN_DIR, key),
            _ => Ok(()),
        }
    }
}

fn own_sub_dir(work: &WorkDir, name: &str) -> Result<OwnedFd> {
    let own = work.own_dir()?;
    match open::make_dir(own, OsStr::new(name), 0o700) {
        Err(error) if !error.is(libc::EEXIST) => Err(error),
        _ => open::open_dir(own, OsStr::new(name)),
    }
}

/// Writes a small number under a key, in one step.
fn put_record(upper: &Upper, dir: &str, key: &str, text: &str) -> Result<()> {
    let dir = own_sub_dir(upper.work(), dir)?;
    let built = upper.work().temporary();
    open::symlink(OsStr::new(text), built.dir(), built.name())?;
    rename::replace(built.at(), rename::At { dir: dir.as_fd(), name: OsStr::new(key) })?;
    built.published();
    Ok(())
}

fn drop_record(upper: &Upper, dir: &str, key: &str) -> Result<()> {
    let Some(own) = upper.work().existing_own_dir()? else { return Ok(()) };
    match open::exists(own, OsStr::new(dir))? {
        true => upper.remove_record(open::open_dir(own, OsStr::new(dir))?.as_fd(), OsStr::new(key)),
        false => Ok(()),
    }
}

fn read_count(dir: BorrowedFd<'_>, key: &OsStr) -> Result<Option<i32>> {
    match open::read_link(dir, key) {
        Ok(target) => Ok(std::str::from_utf8(&target).ok().and_then(|text| text.parse().ok())),
        Err(error) if error.is(libc::ENOENT) || error.is(libc::EINVAL) => Ok(None),
        Err(error) => Err(error),
    }
}

fn entry_dir(work: &WorkDir, key: &str) -> Result<OwnedFd> {
    match key.starts_with(FB_HEX_START) {
        true => work.side_dir(INDEX_DIR),
        false => own_sub_dir(work, LINKS_DIR),
    }
}

/// The key of a lower file and, where its filesystem has file handles, the `ovl_fb` that it is the text of.
pub fn key_of(
    layer: &Layer,
    dir: BorrowedFd<'_>,
    name: &OsStr,
    found: &Stat,
    depth: usize,
) -> Result<(Arc<str>, Option<Vec<u8>>)> {
    match file_handle(dir, name)? {
        Some(handle) if handle.bytes.len() + FB_HEADER_BYTES <= 120 => {
            let fb = encode(&handle, &layer.uuid());
            Ok((Arc::from(hex(&fb)), Some(fb)))
        }
        // Counted from the bottom, a layer keeps its place when others are put on top.
        _ => Ok((Arc::from(format!("layer{depth}-{:x}", found.ino)), None)),
    }
}

/// Mark of a copied-up file that holds the `ovl_fb` of the lower one, as the kernel writes it.
const ORIGIN_MARK: &str = "origin";
/// Mark that holds the link count.
const NLINK_MARK: &str = "nlink";

/// Marks an upper file as the one that a lower file with several names became, for the kernel's overlayfs: we find it by
/// its entry in the index.
pub fn store_origin(upper: &Upper, fd: BorrowedFd<'_>, fb: &[u8]) -> Result<()> {
    upper.set_mark(fd, ORIGIN_MARK, fb).map(drop)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

fn encode(handle: &FileHandle, uuid: &[u8; 16]) -> Vec<u8> {
    let length = FB_HEADER_BYTES + handle.bytes.len();
    let mut fb = vec![0, FB_MAGIC, length as u8, FB_FLAGS, handle.kind];
    fb.extend_from_slice(uuid);
    fb.extend_from_slice(&handle.bytes);
    fb
}

/// Reads the `nlink` attribute, given the link counts that it may be relative to.
fn parse_nlink(value: &[u8], upper_nlink: u32, lower_nlink: Option<u32>) -> Option<i32> {
    let text = std::str::from_utf8(value).ok()?.trim_end_matches('\0');
    let (base, delta) = (text.get(..1)?, text.get(1..)?.parse::<i32>().ok()?);
    match base {
        "U" => Some(delta),
        // Relative to the lower file: the same count, said relative to the upper one.
        "L" => Some(i32::try_from(lower_nlink?).ok()? + delta - i32::try_from(upper_nlink).ok()?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nlink_is_read_back() {
        for delta in [-2, 0, 3] {
            assert_eq!(parse_nlink(format!("U{delta:+}").as_bytes(), 5, None), Some(delta));
        }
        assert_eq!(parse_nlink(b"L-1", 2, Some(3)), Some(0));
        for broken in ["", "U", "X+1", "U+x", "L+1"] {
            assert_eq!(parse_nlink(broken.as_bytes(), 1, None), None, "{broken}");
        }
    }

    #[test]
    fn a_key_is_the_kernels() {
        let handle = FileHandle { kind: 1, bytes: vec![1, 2, 3, 4, 5, 6, 7, 8] };
        let fb = encode(&handle, &[0xaa; 16]);
        assert_eq!(&fb[..5], &[0, 0xfb, 29, FB_FLAGS, 1]);
        assert_eq!(&fb[5..21], &[0xaa; 16]);
        assert_eq!(&fb[21..], &[1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
