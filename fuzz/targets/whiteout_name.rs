//! Names and attribute values that are marks: every byte string is read as exactly one thing, and read back as what was written.
#![no_main]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use lamina_fs::layer::{LayerName, Overridden, is_private_xattr, is_reserved, show_security, store_security};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let name = OsStr::from_bytes(bytes);
    match LayerName::parse(name) {
        LayerName::Plain(plain) => assert_eq!(plain, name),
        LayerName::Whiteout(hidden) => assert_eq!([b".wh.", hidden.as_bytes()].concat(), bytes),
        LayerName::Opaque => assert_eq!(bytes, b".wh..wh..opq"),
        LayerName::Bookkeeping => assert!(bytes.starts_with(b".wh..wh.")),
    }
    assert_eq!(is_reserved(name), !matches!(LayerName::parse(name), LayerName::Plain(_)));
    let hiding = OsString::from_vec([b".wh.", bytes].concat());
    assert_eq!(is_reserved(&hiding), !bytes.is_empty(), "{hiding:?}");

    // An attribute of this host is kept under another name, and comes back as itself.
    if let Some(stored) = store_security(name) {
        assert_eq!(show_security(&stored).as_deref(), Some(name));
        assert!(!is_private_xattr(name), "{name:?} is shown");
    }
    if let Some(overridden) = Overridden::parse(bytes) {
        assert_eq!(Overridden::parse(overridden.format().as_bytes()), Some(overridden));
    }
});
