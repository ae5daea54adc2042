//! What an image refers to, read from its documents.
//!
//! Owns the fields that are followed. Must not know where blobs are. Invariant: what is not understood refers to nothing, and is
//! never an error: documents come from strangers.

use crate::digest::{ChainId, DiffId, Digest};
use serde::Deserialize;

/// A document that is larger refers to nothing: registries refuse manifests beyond 4 MiB.
pub const DOCUMENT_BYTES_MAX: u64 = 16 << 20;

/// What a manifest or an index refers to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Further manifests and indexes, to be read in turn.
    pub manifests: Vec<Digest>,
    /// Configurations, to be read for their layers.
    pub configs: Vec<Digest>,
    /// Blobs that refer to nothing.
    pub blobs: Vec<Digest>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Document {
    manifests: Vec<Descriptor>,
    config: Option<Descriptor>,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: Digest,
}

/// Reads a manifest or an index of either specification.
pub fn references(document: &[u8]) -> References {
    let document: Document = serde_json::from_slice(document).unwrap_or_default();
    let digests = |descriptors: Vec<Descriptor>| descriptors.into_iter().map(|descriptor| descriptor.digest).collect();
    References {
        manifests: digests(document.manifests),
        configs: digests(document.config.into_iter().collect()),
        blobs: digests(document.layers),
    }
}

/// The chains of the layers that an image configuration names, bottom first.
pub fn chains(configuration: &[u8]) -> Vec<ChainId> {
    #[derive(Deserialize)]
    struct Configuration {
        rootfs: RootFs,
    }
    #[derive(Deserialize)]
    struct RootFs {
        diff_ids: Vec<DiffId>,
    }
    let read: Result<Configuration, _> = serde_json::from_slice(configuration);
    read.map(|configuration| ChainId::chains(&configuration.rootfs.diff_ids)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_indexes_and_configurations_are_followed() {
        let (a, b, c) = (Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"c"));
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{a}","size":1}},"layers":[{{"digest":"{b}"}},{{"digest":"{c}"}}]}}"#
        );
        assert_eq!(
            references(manifest.as_bytes()),
            References { manifests: vec![], configs: vec![a], blobs: vec![b, c] }
        );
        let index = format!(r#"{{"manifests":[{{"digest":"{a}","platform":{{"os":"linux"}}}}]}}"#);
        assert_eq!(references(index.as_bytes()).manifests, [a]);
        let configuration = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":["{a}","{b}"]}}}}"#);
        assert_eq!(chains(configuration.as_bytes()), ChainId::chains(&[a.into(), b.into()]));
    }

    #[test]
    fn rubbish_refers_to_nothing() {
        for text in ["", "{", "[]", r#"{"layers":[{"digest":"md5:1"}]}"#, r#"{"config":7}"#] {
            assert_eq!(references(text.as_bytes()), References::default());
            assert!(chains(text.as_bytes()).is_empty());
        }
    }
}
