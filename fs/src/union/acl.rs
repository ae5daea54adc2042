//! POSIX access control lists, where the filesystem below cannot apply them for us.
//!
//! Owns the wire format of `system.posix_acl_access` and `system.posix_acl_default` (include/uapi/linux/posix_acl_xattr.h) and
//! inheritance from a directory (acl(5), "OBJECT CREATION AND DEFAULT ACLs"). Does no I/O. Invariant: bytes that do not parse
//! are refused, never guessed.

use super::ids::IdPolicy;
use crate::error::{Error, Result};

/// Attribute of the list that is checked.
pub const ACCESS: &str = "system.posix_acl_access";
/// Attribute of the list that new files of a directory inherit.
pub const DEFAULT: &str = "system.posix_acl_default";

const VERSION: u32 = 2;
const HEADER_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct AclEntry {
    tag: u16,
    permissions: u16,
    id: u32,
}

fn parse(value: &[u8]) -> Result<Vec<AclEntry>> {
    let (header, entries) = value.split_at_checked(HEADER_BYTES).ok_or(Error::InvalidArgument)?;
    if header != VERSION.to_le_bytes() || !entries.len().is_multiple_of(ENTRY_BYTES) {
        return Err(Error::InvalidArgument);
    }
    Ok(entries
        .chunks_exact(ENTRY_BYTES)
        .map(|raw| AclEntry {
            tag: u16::from_le_bytes([raw[0], raw[1]]),
            permissions: u16::from_le_bytes([raw[2], raw[3]]),
            id: u32::from_le_bytes([raw[4], raw[5], raw[6], raw[7]]),
        })
        .collect())
}

fn format(entries: &[AclEntry]) -> Vec<u8> {
    let mut value = VERSION.to_le_bytes().to_vec();
    for entry in entries {
        value.extend_from_slice(&entry.tag.to_le_bytes());
        value.extend_from_slice(&entry.permissions.to_le_bytes());
        value.extend_from_slice(&entry.id.to_le_bytes());
    }
    value
}

/// What a new file gets from its directory's default list: its permission bits, and its own list where the bits do not say
/// it all.
pub fn inherit(default: &[u8], permissions: u32) -> Result<(u32, Option<Vec<u8>>)> {
    let mut entries = parse(default)?;
    let mut mode = permissions;
    let has_mask = entries.iter().any(|entry| entry.tag == MASK);
    for entry in &mut entries {
        let shift = match entry.tag {
            USER_OBJ => 6,
            GROUP_OBJ if !has_mask => 3,
            MASK => 3,
            OTHER => 0,
            _ => continue,
        };
        entry.permissions &= (mode >> shift & 0o7) as u16;
        mode = mode & !(0o7 << shift) | u32::from(entry.permissions & 0o7) << shift;
    }
    let extended = entries.iter().any(|entry| !matches!(entry.tag, USER_OBJ | GROUP_OBJ | OTHER));
    Ok((mode, extended.then(|| format(&entries))))
}

/// Translates the ids of a list from the layers' to the user's.
pub fn shown(value: &[u8], ids: &IdPolicy) -> Result<Vec<u8>> {
    let mut entries = parse(value)?;
    for entry in &mut entries {
        match entry.tag {
            USER => entry.id = ids.shown(entry.id, 0).0,
            GROUP => entry.id = ids.shown(0, entry.id).1,
            _ => {}
        }
    }
    Ok(format(&entries))
}

/// Translates the ids of a list from the user's to the layers'.
pub fn stored(value: &[u8], ids: &IdPolicy) -> Result<Vec<u8>> {
    let mut entries = parse(value)?;
    for entry in &mut entries {
        match entry.tag {
            USER => entry.id = ids.stored_uid(entry.id)?.unwrap_or(entry.id),
            GROUP => entry.id = ids.stored_gid(entry.id)?.unwrap_or(entry.id),
            _ => {}
        }
    }
    Ok(format(&entries))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tag: u16, permissions: u16, id: u32) -> AclEntry {
        AclEntry { tag, permissions, id }
    }

    #[test]
    fn a_minimal_default_list_becomes_permission_bits() {
        let default = format(&[entry(USER_OBJ, 7, !0), entry(GROUP_OBJ, 5, !0), entry(OTHER, 0, !0)]);
        assert_eq!(inherit(&default, 0o666), Ok((0o640, None)));
    }

    #[test]
    fn the_mask_takes_the_place_of_the_group() {
        let list = [
            entry(USER_OBJ, 7, !0),
            entry(USER, 7, 1000),
            entry(GROUP_OBJ, 5, !0),
            entry(MASK, 7, !0),
            entry(OTHER, 5, !0),
        ];
        let (mode, inherited) = inherit(&format(&list), 0o644).expect("parses");
        assert_eq!(mode, 0o644);
        let inherited = parse(&inherited.expect("has a named user")).expect("parses");
        assert_eq!(inherited[3], entry(MASK, 4, !0));
        assert_eq!(inherited[2], entry(GROUP_OBJ, 5, !0));
    }

    #[test]
    fn broken_lists_are_refused() {
        for broken in [&b""[..], b"\x02\0\0", b"\x01\0\0\0", b"\x02\0\0\0\0"] {
            assert_eq!(parse(broken), Err(Error::InvalidArgument));
        }
    }
}
