//! An index file of a liar whose checksums are right: it is refused or shows nothing; it is not believed, followed in circles or read beyond
//! its end. What passes `verify` shows each of its directories.
#![no_main]

use std::ffi::OsStr;
use std::path::Path;

use lamina_fs::index::{Index, NodeId};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};

/// Where the checksums stand: docs/format.md.
const HEADER_BYTES: usize = 256;
const BODY_CHECKSUM: usize = 176;
const HEADER_CHECKSUM: usize = 224;

/// As many nodes are asked for; more would be time, not coverage.
const NODES_MAX: u32 = 512;

fuzz_target!(|bytes: &[u8]| {
    let mut file = bytes.to_vec();
    if file.len() >= HEADER_BYTES {
        let body = Sha256::digest(&file[HEADER_BYTES..]);
        file[BODY_CHECKSUM..BODY_CHECKSUM + 32].copy_from_slice(&body);
        let header = Sha256::digest(&file[..HEADER_CHECKSUM]);
        file[HEADER_CHECKSUM..HEADER_BYTES].copy_from_slice(&header);
    }
    let name = Path::new("index");
    let index = match Index::from_bytes(name, &file) {
        Ok(index) => index,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let sound = index.verify(name).is_ok();
    assert!(index.layers().count() <= file.len());
    let summary = format!("{:?}", index.summary());
    assert!(!summary.is_empty());
    // Also ids that no entry has.
    for id in (0..NODES_MAX).map(NodeId).chain([NodeId(u32::MAX)]) {
        ask(&index, id, sound);
    }
});

fn ask(index: &Index, id: NodeId, sound: bool) {
    let node = index.node(id);
    assert!(index.find(id, OsStr::new("no such name")).is_none() || !sound);
    assert!(index.parts(id).count() <= usize::from(u16::MAX));
    assert!(index.link_target(id).is_none_or(|target| !sound || !target.is_empty()));
    for name in index.xattr_names(id).take(64) {
        assert!(!sound || index.xattr(id, name).is_some(), "{name:?} is listed and has no value");
    }
    for (name, child) in index.entries(id).take(512) {
        let found = index.find(id, name);
        assert!(!sound || found == Some(child), "{name:?} is listed as {child:?} and found as {found:?}");
        assert!(!sound || index.node(child).is_some() && node.is_some());
    }
}
