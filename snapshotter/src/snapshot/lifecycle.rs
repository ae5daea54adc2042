//! What may happen to a snapshot, decided from its record alone.
//!
//! Owns the rules of containerd's snapshotter contract (`core/snapshots/snapshotter.go`). Invariant: a refusal is decided
//! before anything changed, and each rule stands here once.

use super::{Kind, Labels, Snapshot};
use crate::error::{Error, Result};

/// Whether a snapshot may be made under a key that `existing` holds, or nobody.
pub fn may_create(key: &str, existing: Option<&Snapshot>) -> Result<()> {
    match existing {
        _ if key.is_empty() => Err(Error::EmptyKey),
        Some(taken) => Err(Error::SnapshotExists { key: taken.key.clone() }),
        None => Ok(()),
    }
}

/// Whether it may have children.
pub fn may_be_parent(parent: &Snapshot) -> Result<()> {
    match parent.kind {
        Kind::Committed => Ok(()),
        kind => Err(Error::ParentNotCommitted { key: parent.key.clone(), kind: kind.as_str() }),
    }
}

/// Whether it may be committed, onto the parent that it has. `wanted` is the parent that a caller names, empty if none.
pub fn may_commit(active: &Snapshot, wanted: &str) -> Result<()> {
    match active.kind {
        Kind::Active => {}
        kind => return Err(Error::NotActive { key: active.key.clone(), kind: kind.as_str() }),
    }
    if wanted.is_empty() || wanted == active.parent_key {
        return Ok(());
    }
    Err(Error::OtherParent { key: active.key.clone(), parent: active.parent_key.clone(), wanted: wanted.to_owned() })
}

/// Whether it can be mounted.
pub fn may_mount(snapshot: &Snapshot) -> Result<()> {
    match snapshot.kind {
        Kind::Active | Kind::View => Ok(()),
        Kind::Committed => Err(Error::NotMountable { key: snapshot.key.clone() }),
    }
}

/// Whether it may go.
pub fn may_remove(snapshot: &Snapshot, has_children: bool) -> Result<()> {
    match has_children {
        true => Err(Error::HasChildren { key: snapshot.key.clone() }),
        false => Ok(()),
    }
}

/// The labels after an update: `fields` as in a field mask, none for "all of them". An empty value drops its label.
pub fn updated_labels(current: &Labels, wanted: &Labels, fields: &[String]) -> Result<Labels> {
    let mut labels = current.clone();
    if fields.is_empty() {
        labels = wanted.clone();
    }
    for field in fields {
        // The key may hold dots and slashes: only the first word is ours.
        match field.strip_prefix("labels.") {
            Some(key) => match wanted.get(key) {
                Some(value) => drop(labels.insert(key.to_owned(), value.clone())),
                None => drop(labels.remove(key)),
            },
            None if field == "labels" => labels = wanted.clone(),
            None => return Err(Error::ImmutableField { field: field.clone() }),
        }
    }
    labels.retain(|_, value| !value.is_empty());
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::snapshot::Space;
    use std::time::SystemTime;

    fn snapshot(kind: Kind, parent: &str) -> Snapshot {
        Snapshot {
            id: 2,
            content: 2,
            space: Space::lamina(),
            key: "k".into(),
            kind,
            parent: (!parent.is_empty()).then_some(1),
            parent_key: parent.into(),
            labels: Labels::new(),
            created: SystemTime::UNIX_EPOCH,
            updated: SystemTime::UNIX_EPOCH,
            usage: None,
            diff_id: None,
            chain_id: None,
        }
    }

    fn kind_of<T>(result: Result<T>) -> Option<ErrorKind> {
        result.err().map(|error| error.kind())
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn one_key_names_one_snapshot_of_any_kind() {
        for kind in [Kind::View, Kind::Active, Kind::Committed] {
            assert_eq!(kind_of(may_create("k", Some(&snapshot(kind, "")))), Some(ErrorKind::AlreadyExists));
        }
        assert_eq!(kind_of(may_create("", None)), Some(ErrorKind::InvalidArgument));
        assert_eq!(kind_of(may_create("k", None)), None);
    }

    #[test]
    fn only_committed_snapshots_have_children() {
        assert_eq!(kind_of(may_be_parent(&snapshot(Kind::Active, ""))), Some(ErrorKind::InvalidArgument));
        assert_eq!(kind_of(may_be_parent(&snapshot(Kind::View, ""))), Some(ErrorKind::InvalidArgument));
        assert_eq!(kind_of(may_be_parent(&snapshot(Kind::Committed, ""))), None);
    }

    #[test]
    fn only_active_snapshots_are_committed_and_onto_their_own_parent() {
        assert_eq!(kind_of(may_commit(&snapshot(Kind::View, ""), "")), Some(ErrorKind::FailedPrecondition));
        assert_eq!(kind_of(may_commit(&snapshot(Kind::Active, "p"), "q")), Some(ErrorKind::InvalidArgument));
        assert_eq!(kind_of(may_commit(&snapshot(Kind::Active, ""), "q")), Some(ErrorKind::InvalidArgument));
        assert_eq!(kind_of(may_commit(&snapshot(Kind::Active, "p"), "p")), None);
        assert_eq!(kind_of(may_commit(&snapshot(Kind::Active, "p"), "")), None);
    }

    #[test]
    fn removal_with_children_says_remove() {
        let error = may_remove(&snapshot(Kind::Committed, ""), true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        assert!(error.to_string().contains("remove"));
    }

    #[test]
    fn update_takes_whole_labels_single_ones_and_nothing_else() {
        let (current, wanted) = (labels(&[("a", "1"), ("b.c/d", "2")]), labels(&[("b.c/d", "3"), ("e", "")]));
        let update = |fields: &[&str]| {
            updated_labels(&current, &wanted, &fields.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(update(&[]).unwrap(), labels(&[("b.c/d", "3")]));
        assert_eq!(update(&["labels"]).unwrap(), labels(&[("b.c/d", "3")]));
        assert_eq!(update(&["labels.b.c/d"]).unwrap(), labels(&[("a", "1"), ("b.c/d", "3")]));
        assert_eq!(update(&["labels.a"]).unwrap(), labels(&[("b.c/d", "2")]));
        assert_eq!(kind_of(update(&["parent"])), Some(ErrorKind::InvalidArgument));
    }
}
