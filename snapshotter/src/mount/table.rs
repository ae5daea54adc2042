//! What is mounted where, from /proc/thread-self/mountinfo: whoever uses the library may have threads with mounts of their own.
//!
//! Owns its syntax, see proc(5). Invariant: asking does not touch the mounts, so a server that hangs cannot hang us.

use crate::error::{Error, Result};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

const TABLE: &str = "/proc/thread-self/mountinfo";

/// The filesystem type of the topmost mount at `path`, if it is a mountpoint.
///
/// # Errors
/// [`Error::Io`] without /proc.
pub fn type_at(path: &Path) -> Result<Option<String>> {
    let mut found = mounts()?.into_iter().filter(|(mountpoint, _)| mountpoint == path);
    // Later mounts cover earlier ones.
    Ok(found.next_back().map(|(_, kind)| kind))
}

fn mounts() -> Result<Vec<(PathBuf, String)>> {
    let table = fs::read(TABLE).map_err(Error::io("read", Path::new(TABLE)))?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// `36 35 98:0 /root /mountpoint options [optional...] - type source options`
fn parse(line: &[u8]) -> Option<(PathBuf, String)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mountpoint = unescape(fields.nth(4)?);
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some((PathBuf::from(OsString::from_vec(mountpoint)), String::from_utf8_lossy(kind).into_owned()))
}

/// Blanks and backslashes are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [byte, tail @ ..] = rest {
        let octal = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok();
        match (byte, tail.get(..3).and_then(octal)) {
            (b'\\', Some(character)) => {
                bytes.push(character);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_and_without_optional_fields() {
        let expected = Some((PathBuf::from("/a b/root"), "fuse.lamina-fs".to_owned()));
        for optional in ["", "shared:1 master:2 "] {
            let line = format!("36 35 0:52 / /a\\040b/root rw,noatime {optional}- fuse.lamina-fs lamina rw");
            assert_eq!(parse(line.as_bytes()), expected);
        }
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn the_root_is_always_mounted() {
        assert!(type_at(Path::new("/")).unwrap().is_some());
        assert_eq!(type_at(Path::new("/proc/self/nothing")).unwrap(), None);
    }
}
