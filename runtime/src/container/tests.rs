//! What a kill, another process or a wrong name may do to the directory of containers.

use super::*;
use lamina_snapshotter::digest::Digest;
use std::collections::BTreeMap;
use std::fs;

fn record(claim: &Claim) -> Record {
    Record {
        id: claim.id().clone(),
        name: claim.name().clone(),
        image: "debian:12".into(),
        image_id: Digest::of(b"config"),
        chain_id: None,
        created: crate::oci::log::rfc3339(std::time::SystemTime::now()),
        content: 7,
        command: vec!["true".into()],
        labels: BTreeMap::from([("a".into(), "b".into())]),
        remove: false,
        terminal: false,
        interactive: false,
        stop_signal: "SIGTERM".into(),
        stop_timeout_seconds: 10,
        rootless: false,
    }
}

fn make(containers: &Containers, name: Option<&str>) -> Container {
    let name = name.map(|name| name.parse().unwrap());
    let claim = containers.claim(name.as_ref()).unwrap();
    let record = record(&claim);
    claim.commit(record).unwrap()
}

#[test]
fn a_container_is_found_by_id_name_and_beginning() {
    let store = tempfile::tempdir().unwrap();
    let containers = Containers::new(store.path());
    assert!(containers.list().unwrap().is_empty());
    let (one, other) = (make(&containers, Some("web")), make(&containers, None));
    for text in [one.record.id.as_str(), one.record.id.short(), "web", "/web"] {
        assert_eq!(containers.find(text).unwrap().record, one.record, "{text}");
    }
    assert_eq!(containers.find(other.record.name.as_str()).unwrap().record, other.record);
    assert_eq!(containers.list().unwrap().len(), 2);
    let missing = containers.find("nothing").unwrap_err().to_string();
    assert_eq!(missing, "No such container: nothing");
    assert!(matches!(containers.find(""), Err(Error::NoSuchContainer { .. })));
}

#[test]
fn a_beginning_of_two_ids_is_refused() {
    let store = tempfile::tempdir().unwrap();
    let containers = Containers::new(store.path());
    // Of 17 IDs two begin alike.
    let made: Vec<Container> = (0..17).map(|_| make(&containers, None)).collect();
    let first = |container: &Container| container.record.id.as_str()[..1].to_owned();
    let shared = made.iter().map(first).find(|digit| made.iter().filter(|one| first(one) == *digit).count() > 1);
    assert!(matches!(containers.find(&shared.unwrap()), Err(Error::Ambiguous { .. })));
}

#[test]
fn a_name_is_taken_once_and_free_after_the_removal() {
    let store = tempfile::tempdir().unwrap();
    let containers = Containers::new(store.path());
    let first = make(&containers, Some("web"));
    let name = "web".parse().unwrap();
    let refused = containers.claim(Some(&name)).unwrap_err().to_string();
    assert!(refused.contains("\"web\" is already in use") && refused.contains(first.record.id.as_str()), "{refused}");
    assert_eq!(fs::read_dir(store.path().join("containers")).unwrap().count(), 3, "lock, names and one container");
    let lock = first.lock().unwrap();
    containers.remove(&first).unwrap();
    drop(lock);
    assert!(matches!(first.lock(), Err(Error::NoSuchContainer { .. })));
    make(&containers, Some("web"));
    for text in ["", "-a", "a b", "a/b", "ä", &"n".repeat(256)] {
        assert!(matches!(text.parse::<Name>(), Err(Error::BadName { .. })), "{text}");
    }
}

#[test]
fn a_claim_that_is_dropped_leaves_nothing() {
    let store = tempfile::tempdir().unwrap();
    let containers = Containers::new(store.path());
    let name = "web".parse().unwrap();
    drop(containers.claim(Some(&name)).unwrap());
    assert!(containers.sweep().unwrap().is_empty());
    assert_eq!(fs::read_dir(store.path().join("containers/names")).unwrap().count(), 0);
    make(&containers, Some("web"));
}

#[test]
fn what_a_kill_left_is_swept_and_what_is_being_made_is_not() {
    let store = tempfile::tempdir().unwrap();
    let containers = Containers::new(store.path());
    let (whole, half) = (make(&containers, Some("whole")), make(&containers, Some("half")));
    let claim = containers.claim(Some(&"claimed".parse().unwrap())).unwrap();
    // Killed before its record, or after its record was removed.
    fs::remove_file(half.dir().join("container.json")).unwrap();
    assert!(matches!(containers.find("half"), Err(Error::NoSuchContainer { .. })));
    assert_eq!(containers.sweep().unwrap(), std::slice::from_ref(&half.record.id));
    assert!(!half.dir().exists());
    let record = record(&claim);
    let claimed = claim.commit(record).unwrap();
    assert_eq!(containers.find("claimed").unwrap().record, claimed.record);
    assert_eq!(containers.find("whole").unwrap().record, whole.record);
}

#[test]
fn a_name_that_a_kill_left_can_be_taken() {
    let store = tempfile::tempdir().unwrap();
    let containers = Containers::new(store.path());
    let half = make(&containers, Some("web"));
    fs::remove_file(half.dir().join("container.json")).unwrap();
    let next = make(&containers, Some("web"));
    assert_eq!(containers.find("web").unwrap().record, next.record);
}

#[test]
fn how_it_ended_is_read_back() {
    let store = tempfile::tempdir().unwrap();
    let container = make(&Containers::new(store.path()), None);
    assert_eq!(container.exit().unwrap(), None);
    let exit = Exit { code: 137, finished: "2024-01-01T00:00:00Z".into(), out_of_memory: true, error: None };
    container.set_exit(Some(&exit)).unwrap();
    assert_eq!(container.exit().unwrap(), Some(exit));
    container.set_exit(None).unwrap();
    container.set_exit(None).unwrap();
    assert_eq!(container.exit().unwrap(), None);
}
