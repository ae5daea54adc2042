//! Whiteout and opaque marks in every format that exists.
//!
//! Owns how a mark is spelled: character device 0:0 and xattrs of the kernel's overlayfs
//! (Documentation/filesystems/overlayfs.rst), `.wh.` names of AUFS and OCI image layers (image-spec, layer.md). Must not do
//! I/O. Invariant: `LayerName` tells every name of a layer's directory apart, so no mark is ever shown as a file.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// What a name in a layer's directory means by its spelling alone.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum LayerName<'a> {
    /// `.wh..wh..opq`: nothing of the directories below shows.
    Opaque,
    /// `.wh.NAME`: NAME of the layers below does not show.
    Whiteout(&'a OsStr),
    /// `.wh..wh.*`: bookkeeping of AUFS; never shown.
    Bookkeeping,
    /// A file.
    Plain(&'a OsStr),
}

/// Prefix of a whiteout's name in AUFS and OCI layers.
const DOT_PREFIX: &[u8] = b".wh.";
/// Prefix of AUFS's own files.
const BOOKKEEPING_PREFIX: &[u8] = b".wh..wh.";
/// The file that makes its directory opaque.
pub const OPAQUE_FILE: &str = ".wh..wh..opq";

impl<'a> LayerName<'a> {
    /// Reads a name.
    pub fn parse(name: &'a OsStr) -> Self {
        let bytes = name.as_bytes();
        if bytes == OPAQUE_FILE.as_bytes() {
            LayerName::Opaque
        } else if bytes.starts_with(BOOKKEEPING_PREFIX) {
            LayerName::Bookkeeping
        } else {
            match bytes.strip_prefix(DOT_PREFIX) {
                Some(b"") | None => LayerName::Plain(name),
                Some(hidden) => LayerName::Whiteout(OsStr::from_bytes(hidden)),
            }
        }
    }
}

/// Whether a user may not give a file this name, because it would be read as a mark.
pub fn is_reserved(name: &OsStr) -> bool {
    !matches!(LayerName::parse(name), LayerName::Plain(_))
}

/// The name of the `.wh.` file that hides `name`.
pub fn dot_name(name: &OsStr) -> OsString {
    OsString::from_vec([DOT_PREFIX, name.as_bytes()].concat())
}

/// The attributes that may make a directory opaque, strongest claim first.
pub const OPAQUE_XATTRS: [&str; 3] = ["trusted.overlay.opaque", "user.overlay.opaque", "user.fuseoverlayfs.opaque"];
/// The attributes that make an empty regular file a whiteout, where its directory's opaque attribute is `x`.
pub const WHITEOUT_XATTRS: [&str; 2] = ["trusted.overlay.whiteout", "user.overlay.whiteout"];

/// What a directory's opaque attribute says.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum OpaqueValue {
    /// `y`: nothing below shows.
    Opaque,
    /// `x`: the directory may hold xattr whiteouts.
    HoldsXattrWhiteouts,
    /// Anything else.
    Nothing,
}

impl OpaqueValue {
    /// Reads the value.
    pub fn parse(value: &[u8]) -> Self {
        match value.first() {
            Some(b'y') => OpaqueValue::Opaque,
            Some(b'x') => OpaqueValue::HoldsXattrWhiteouts,
            _ => OpaqueValue::Nothing,
        }
    }
}

/// Prefixes of attributes that belong to union filesystems and are never shown as they are.
const PRIVATE_PREFIXES: [&[u8]; 3] = [b"user.overlay.", b"trusted.overlay.", b"user.fuseoverlayfs."];

/// Whether an attribute of a layer's file belongs to a union filesystem.
pub fn is_private_xattr(name: &OsStr) -> bool {
    PRIVATE_PREFIXES.iter().any(|prefix| name.as_bytes().starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let parse = |name| LayerName::parse(OsStr::new(name));
        assert_eq!(parse("a"), LayerName::Plain(OsStr::new("a")));
        assert_eq!(parse(".wh.a"), LayerName::Whiteout(OsStr::new("a")));
        assert_eq!(parse(".wh..wh..opq"), LayerName::Opaque);
        assert_eq!(parse(".wh..wh.plnk"), LayerName::Bookkeeping);
        assert_eq!(parse(".wh..hidden"), LayerName::Whiteout(OsStr::new(".hidden")));
        assert_eq!(parse(".wh."), LayerName::Plain(OsStr::new(".wh.")));
        assert_eq!(parse(".what"), LayerName::Plain(OsStr::new(".what")));
    }

    #[test]
    fn dot_name_is_read_back() {
        let name = dot_name(OsStr::new("x"));
        assert_eq!(LayerName::parse(&name), LayerName::Whiteout(OsStr::new("x")));
        assert!(is_reserved(&name));
    }

    #[test]
    fn opaque_value_is_read_by_its_first_byte() {
        assert_eq!(OpaqueValue::parse(b"y"), OpaqueValue::Opaque);
        assert_eq!(OpaqueValue::parse(b"x"), OpaqueValue::HoldsXattrWhiteouts);
        assert_eq!(OpaqueValue::parse(b""), OpaqueValue::Nothing);
        assert_eq!(OpaqueValue::parse(b"n"), OpaqueValue::Nothing);
    }

    #[test]
    fn private_attributes_are_known() {
        assert!(is_private_xattr(OsStr::new("user.overlay.opaque")));
        assert!(is_private_xattr(OsStr::new("trusted.overlay.origin")));
        assert!(!is_private_xattr(OsStr::new("user.overlayed")));
        assert!(!is_private_xattr(OsStr::new("security.capability")));
    }
}
