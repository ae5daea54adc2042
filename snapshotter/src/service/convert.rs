//! Our types as messages, and back.
//!
//! Owns the field-by-field copies. Invariant: nothing is lost on the way out.

use super::proto::services::snapshots::v1::{Info, Kind as ProtoKind};
use super::proto::types;
use crate::mount::Mount;
use crate::snapshot::{Kind, Labels, Snapshot};
use prost_types::Timestamp;
use std::collections::HashMap;

pub fn info(snapshot: Snapshot) -> Info {
    let kind = match snapshot.kind {
        Kind::View => ProtoKind::View,
        Kind::Active => ProtoKind::Active,
        Kind::Committed => ProtoKind::Committed,
    };
    Info {
        name: snapshot.key,
        parent: snapshot.parent_key,
        kind: kind.into(),
        created_at: Some(Timestamp::from(snapshot.created)),
        updated_at: Some(Timestamp::from(snapshot.updated)),
        labels: snapshot.labels.into_iter().collect(),
    }
}

pub fn mounts(mounts: Vec<Mount>) -> Vec<types::Mount> {
    let convert = |mount: Mount| types::Mount {
        r#type: mount.kind.to_owned(),
        source: mount.source,
        target: String::new(),
        options: mount.options,
    };
    mounts.into_iter().map(convert).collect()
}

pub fn labels(labels: HashMap<String, String>) -> Labels {
    labels.into_iter().collect()
}
