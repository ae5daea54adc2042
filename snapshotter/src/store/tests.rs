//! The store on a temporary directory: what it refuses, what it keeps over a restart, what two threads do to it.

use super::*;
use crate::digest::DiffId;
use crate::error::ErrorKind;
use crate::snapshot::{Kind, Labels, Snapshot, Space, Usage};
use std::io::Write as _;
use std::time::SystemTime;
use tempfile::TempDir;

struct Fixture {
    home: TempDir,
    store: Option<Store>,
}

impl Fixture {
    fn new() -> Fixture {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        Fixture { home, store: Some(store) }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(Store::open(self.home.path()).unwrap());
    }

    /// How many directories of snapshots there are.
    fn directories(&self) -> usize {
        self.store().dirs().contents().unwrap().len()
    }

    fn put_blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        if let BeginBlob::Staging(mut staging) = self.store().begin_blob(&digest, Some(bytes.len() as u64)).unwrap() {
            staging.write_all(bytes).unwrap();
            staging.commit().unwrap();
        }
        digest
    }

    fn put_layer(&self, text: &str, parent: Option<&ChainId>) -> ChainId {
        let diff = DiffId::from(Digest::of(text.as_bytes()));
        let chain = ChainId::of(parent, &diff);
        if let Begin::Staging(staging) = self.store().begin_layer(chain, parent).unwrap() {
            std::fs::write(staging.path().join(text), text).unwrap();
            staging.commit(diff, Usage { size: 10, inodes: 2 }).unwrap();
        }
        chain
    }

    /// The configuration and the manifest of an image of these layers.
    fn documents(&self, layers: &[&str]) -> [String; 2] {
        let digest = |layer: &&str| Digest::of(layer.as_bytes());
        let diffs: Vec<String> = layers.iter().map(|layer| format!("\"{}\"", digest(layer))).collect();
        let blobs: Vec<String> = layers.iter().map(|layer| format!(r#"{{"digest":"{}"}}"#, digest(layer))).collect();
        let config = format!(r#"{{"rootfs":{{"diff_ids":[{}]}}}}"#, diffs.join(","));
        let named = Digest::of(config.as_bytes());
        let manifest = format!(r#"{{"config":{{"digest":"{named}"}},"layers":[{}]}}"#, blobs.join(","));
        [config, manifest]
    }

    /// An image of these layers, bottom first.
    fn put_image(&self, reference: &str, layers: &[&str]) -> Vec<ChainId> {
        let mut chains: Vec<ChainId> = Vec::new();
        for layer in layers {
            chains.push(self.put_layer(layer, chains.last()));
        }
        for layer in layers {
            self.put_blob(layer.as_bytes());
        }
        let [config, manifest] = self.documents(layers);
        self.put_blob(config.as_bytes());
        let manifest = self.put_blob(manifest.as_bytes());
        let record = ImageRecord {
            reference: reference.into(),
            manifest,
            media_type: "application/vnd.oci.image.manifest.v1+json".into(),
            created: SystemTime::now(),
        };
        self.store().put_image(&record).unwrap();
        chains
    }
}

fn space() -> Space {
    Space::containerd("lamina")
}

fn kind_of<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn what_was_answered_is_there_after_a_restart() {
    let mut fixture = Fixture::new();
    let labels = Labels::from([("a".into(), "b".into())]);
    fixture.store().prepare(&space(), "ns/1/one key: any", "", labels.clone()).unwrap();
    let committed = fixture.store().commit(&space(), "name", "ns/1/one key: any", "", labels).unwrap();
    let above = fixture.store().prepare(&space(), "above", "name", Labels::new()).unwrap();
    fixture.reopen();
    assert_eq!(fixture.store().stat(&space(), "name").unwrap(), committed);
    assert_eq!(fixture.store().stat(&space(), "above").unwrap(), above);
    assert_eq!(kind_of(fixture.store().stat(&space(), "ns/1/one key: any")), Some(ErrorKind::NotFound));
    assert_eq!(fixture.store().lowers(&above).unwrap(), [fixture.store().dirs().layer(committed.content)]);
    assert_eq!(fixture.directories(), 2);
}

#[test]
fn a_refused_change_changes_nothing() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let active = store.prepare(&space(), "k", "", Labels::new()).unwrap();
    let create = |key: &str, parent: &str| kind_of(store.prepare(&space(), key, parent, Labels::new()));
    assert_eq!(create("k", ""), Some(ErrorKind::AlreadyExists));
    assert_eq!(create("other", "missing"), Some(ErrorKind::NotFound));
    assert_eq!(create("other", "k"), Some(ErrorKind::InvalidArgument));
    assert_eq!(kind_of(store.commit(&space(), "k", "k", "", Labels::new())), Some(ErrorKind::AlreadyExists));
    assert_eq!(kind_of(store.commit(&space(), "n", "k", "p", Labels::new())), Some(ErrorKind::InvalidArgument));
    assert_eq!(store.list(&space()).unwrap(), [active]);
    assert_eq!(fixture.directories(), 1);
}

#[test]
fn spaces_do_not_see_each_other() {
    let fixture = Fixture::new();
    fixture.store().prepare(&space(), "k", "", Labels::new()).unwrap();
    fixture.store().prepare(&Space::containerd("other"), "k", "", Labels::new()).unwrap();
    assert!(fixture.store().list(&Space::lamina()).unwrap().is_empty());
    fixture.store().remove(&space(), "k").unwrap();
    assert_eq!(fixture.store().list(&Space::containerd("other")).unwrap().len(), 1);
    assert_eq!(fixture.directories(), 1);
}

#[test]
fn a_parent_stays_while_it_has_children() {
    let fixture = Fixture::new();
    let store = fixture.store();
    store.prepare(&space(), "k", "", Labels::new()).unwrap();
    store.commit(&space(), "base", "k", "", Labels::new()).unwrap();
    store.view(&space(), "v", "base", Labels::new()).unwrap();
    assert_eq!(kind_of(store.remove(&space(), "base")), Some(ErrorKind::FailedPrecondition));
    store.remove(&space(), "v").unwrap();
    store.remove(&space(), "base").unwrap();
    assert_eq!(fixture.directories(), 0);
}

#[test]
fn orphans_of_a_crash_go_at_the_next_opening_and_numbers_are_not_used_twice() {
    let mut fixture = Fixture::new();
    let kept = fixture.store().prepare(&space(), "k", "", Labels::new()).unwrap();
    let last = fixture.store().prepare(&space(), "last", "", Labels::new()).unwrap();
    fixture.store().remove(&space(), "last").unwrap();
    fixture.store().dirs().make_content(77, true).unwrap();
    let partial = fixture.store().dirs().ingest().join("5");
    std::fs::write(&partial, "half").unwrap();
    fixture.reopen();
    assert_eq!(fixture.store().dirs().contents().unwrap(), [kept.content]);
    assert!(!partial.exists());
    assert!(fixture.store().prepare(&space(), "new", "", Labels::new()).unwrap().id > last.id);
}

#[test]
fn a_newer_schema_is_refused_in_a_sentence() {
    let mut fixture = Fixture::new();
    fixture.store().metadata().set_schema(metadata::SCHEMA + 1);
    fixture.store = None;
    let error = Store::open(fixture.home.path()).unwrap_err();
    assert!(matches!(error, Error::NewerSchema { .. }), "{error}");
}

#[test]
fn a_blob_is_published_whole_or_not_at_all() {
    let fixture = Fixture::new();
    let digest = Digest::of(b"hello");
    let stage = |size: u64| match fixture.store().begin_blob(&digest, Some(size)).unwrap() {
        BeginBlob::Staging(staging) => staging,
        BeginBlob::Present(_) => panic!("it is not there yet"),
    };
    let mut staging = stage(5);
    staging.write_all(b"hell").unwrap();
    assert_eq!(staging.offset(), 4);
    assert!(matches!(staging.commit(), Err(Error::WrongSize { .. })));
    let mut staging = stage(5);
    staging.write_all(b"hullo").unwrap();
    assert!(matches!(staging.commit(), Err(Error::WrongDigest { .. })));
    let mut staging = stage(5);
    assert!(staging.write_all(b"hello!").is_err(), "longer than announced");
    drop(staging);
    assert_eq!(fixture.store().blob(&digest).unwrap(), None);
    assert!(dirs::names(&fixture.store().dirs().ingest()).unwrap().is_empty());
    assert_eq!(fixture.put_blob(b"hello"), digest);
    assert_eq!(fixture.store().blob(&digest).unwrap().unwrap().size, 5);
}

#[test]
fn a_chain_is_unpacked_once_by_however_many_threads() {
    let fixture = Fixture::new();
    let diff = DiffId::from(Digest::of(b"layer"));
    let chain = ChainId::of(None, &diff);
    let unpacked: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| match fixture.store().begin_layer(chain, None).unwrap() {
                    Begin::Present(_) => 0,
                    Begin::Staging(staging) => staging.commit(diff, Usage::default()).map(|_| 1).unwrap(),
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(unpacked, 1);
    assert_eq!(fixture.directories(), 1);
}

#[test]
fn a_dropped_or_wrong_layer_leaves_nothing() {
    let fixture = Fixture::new();
    let (a, b) = (DiffId::from(Digest::of(b"a")), DiffId::from(Digest::of(b"b")));
    let (below, above) = (ChainId::of(None, &a), ChainId::of(Some(&ChainId::of(None, &a)), &b));
    let stage = |chain, parent: Option<&ChainId>| match fixture.store().begin_layer(chain, parent).unwrap() {
        Begin::Staging(staging) => staging,
        Begin::Present(_) => panic!("it is not there yet"),
    };
    drop(stage(below, None));
    assert!(matches!(stage(below, None).commit(b, Usage::default()), Err(Error::WrongChain { .. })));
    let early = stage(above, Some(&below));
    assert!(matches!(early.lowers(), Err(Error::NoLayer { .. })));
    let base = stage(below, None).commit(a, Usage::default()).unwrap();
    assert_eq!(early.lowers().unwrap(), [fixture.store().dirs().layer(base.content)]);
    early.commit(b, Usage::default()).unwrap();
    assert_eq!(fixture.directories(), 2);
}

#[test]
fn a_layer_of_another_space_is_shown_not_copied() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let chains = [fixture.put_layer("a", None)];
    let above = fixture.put_layer("b", Some(&chains[0]));
    let adopt = |parent: &str, chain: &ChainId| store.adopt(&space(), parent, chain, Labels::new()).unwrap();
    assert_eq!(adopt("", &above), None, "it stands on another layer");
    let base = adopt("", &chains[0]).unwrap();
    let top = adopt(&base.key, &above).unwrap();
    assert_eq!(adopt(&base.key, &above).unwrap(), top, "once is enough");
    assert_eq!(store.lowers(&top).unwrap(), [store.dirs().layer(base.content)]);
    assert_eq!(fixture.directories(), 2);
    assert_eq!(store.prune().unwrap().layers, 2);
    assert_eq!(fixture.directories(), 2, "containerd still shows them");
    store.remove(&space(), &top.key).unwrap();
    store.remove(&space(), &base.key).unwrap();
    assert_eq!(fixture.directories(), 0);
}

#[test]
fn prune_takes_exactly_what_nothing_refers_to() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let first = fixture.put_image("first", &["base", "one"]);
    let second = fixture.put_image("second", &["base", "two", "three"]);
    assert_eq!(store.prune().unwrap(), Pruned::default());
    store.remove_image("second").unwrap();
    store.prepare(&Space::lamina(), "container", &second[1].to_string(), Labels::new()).unwrap();
    let expected = store.prunable().unwrap();
    let pruned = store.prune().unwrap();
    assert_eq!(pruned, expected, "what was announced");
    // The layer "three", and of blobs the manifest, the configuration, "two" and "three".
    assert_eq!((pruned.layers, pruned.blobs), (1, 4));
    let there = |chain: &ChainId| store.layer(chain).unwrap().is_some();
    assert!(first.iter().chain(&second[..2]).all(there) && !there(&second[2]));
    store.remove(&Space::lamina(), "container").unwrap();
    store.remove_image("first").unwrap();
    let expected = store.prunable().unwrap();
    assert_eq!((store.prune().unwrap(), expected.layers), (expected, 3));
    assert!(store.blobs().unwrap().is_empty());
    assert_eq!(fixture.directories(), 0);
}

#[test]
fn a_container_keeps_the_layers_that_it_stands_on() {
    let mut fixture = Fixture::new();
    let chains = fixture.put_image("image", &["base", "top"]);
    let store = fixture.store();
    let made = store.prepare_container("id", chains.last(), Labels::new()).unwrap();
    assert_eq!(kind_of(store.prepare_container("id", None, Labels::new())), Some(ErrorKind::AlreadyExists));
    let missing = ChainId::of(None, &DiffId::from(Digest::of(b"elsewhere")));
    assert_eq!(kind_of(store.prepare_container("other", Some(&missing), Labels::new())), Some(ErrorKind::NotFound));
    store.remove_image("image").unwrap();
    assert_eq!((store.prunable().unwrap().layers, store.prune().unwrap().layers), (0, 0));
    fixture.reopen();
    let store = fixture.store();
    assert_eq!(store.stat(&Space::containers(), "id").unwrap(), made);
    assert!(store.lowers(&made).unwrap().iter().all(|layer| layer.is_dir()));
    assert_eq!((store.lowers(&made).unwrap().len(), store.fsck().unwrap()), (2, Vec::new()));
    assert!(store.list(&Space::lamina()).unwrap().iter().all(|layer| layer.kind == Kind::Committed));
    store.remove(&Space::containers(), "id").unwrap();
    assert_eq!(store.prune().unwrap().layers, 2);
    assert_eq!(fixture.directories(), 0);
}

#[test]
fn a_container_of_an_empty_image_stands_on_nothing() {
    let fixture = Fixture::new();
    let made = fixture.store().prepare_container("id", None, Labels::new()).unwrap();
    assert_eq!((made.parent, fixture.store().fsck().unwrap()), (None, Vec::new()));
}

#[test]
fn a_lease_keeps_what_it_pins_also_when_dropped_during_a_prune() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let (blob, layer) = (fixture.put_blob(b"x"), fixture.put_layer("y", None));
    let lease = store.lease();
    lease.pin_blob(&blob);
    lease.pin_layer(&layer);
    assert_eq!(store.prune().unwrap(), Pruned::default());
    let under_way = leases::PruneUnderWay::begin(store);
    drop(lease);
    assert_eq!(store.prune().unwrap(), Pruned::default());
    drop(under_way);
    let pruned = store.prune().unwrap();
    assert_eq!((pruned.layers, pruned.blobs), (1, 1));
}

/// Loads, starts and prunes side by side: whoever holds a lease, or has an image or a container, finds all of it.
#[test]
fn prune_takes_nothing_from_those_who_load_and_start_meanwhile() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let done = std::sync::atomic::AtomicBool::new(false);
    let load_and_start = |thread: usize| {
        for round in 0..8 {
            let layers = ["shared".to_owned(), format!("own-{thread}-{round}")];
            let diffs = layers.iter().map(|text| DiffId::from(Digest::of(text.as_bytes()))).collect::<Vec<_>>();
            let chains = ChainId::chains(&diffs);
            let lease = store.lease();
            layers.iter().for_each(|layer| lease.pin_blob(&Digest::of(layer.as_bytes())));
            chains.iter().for_each(|chain| lease.pin_layer(chain));
            let texts: Vec<&str> = layers.iter().map(String::as_str).collect();
            let reference = format!("image-{thread}");
            // The manifest and the configuration are pinned by their content, which is known before they are written.
            fixture.documents(&texts).iter().for_each(|text| lease.pin_blob(&Digest::of(text.as_bytes())));
            assert_eq!(fixture.put_image(&reference, &texts), chains);
            drop(lease);
            for layer in &layers {
                assert!(store.blob(&Digest::of(layer.as_bytes())).unwrap().is_some(), "{layer}");
            }
            let key = format!("container-{thread}");
            let container = store.prepare(&Space::lamina(), &key, &chains[1].to_string(), Labels::new()).unwrap();
            store.remove_image(&reference).unwrap();
            assert!(store.lowers(&container).unwrap().iter().all(|layer| layer.is_dir()));
            store.remove(&Space::lamina(), &key).unwrap();
        }
    };
    std::thread::scope(|scope| {
        let pruner = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // An image may be replaced or forgotten between the listing and the look at its manifest.
                store.prune().unwrap();
            }
        });
        let threads: Vec<_> = (0..3).map(|thread| scope.spawn(move || load_and_start(thread))).collect();
        let outcomes: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        done.store(true, Ordering::Relaxed);
        pruner.join().unwrap();
        assert!(outcomes.iter().all(Result::is_ok));
    });
    store.prune().unwrap();
    assert_eq!((store.fsck().unwrap().len(), fixture.directories(), store.blobs().unwrap().len()), (0, 0, 0));
}

#[test]
fn an_image_without_its_manifest_stops_a_prune() {
    let fixture = Fixture::new();
    fixture.put_image("image", &["base"]);
    let manifest = fixture.store().image("image").unwrap().manifest;
    std::fs::remove_file(fixture.store().dirs().blob(&manifest)).unwrap();
    assert!(matches!(fixture.store().prune(), Err(Error::NoBlob { .. })));
    assert_eq!(fixture.directories(), 1);
}

#[test]
fn fsck_is_silent_on_a_whole_store_and_names_each_damage() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let chains = fixture.put_image("image", &["base", "top"]);
    store.prepare(&Space::lamina(), "container", &chains[1].to_string(), Labels::new()).unwrap();
    assert_eq!(store.fsck().unwrap(), Vec::<String>::new());

    let damages = |word: &str| {
        let found = store.fsck().unwrap();
        assert!(found.iter().any(|what| what.contains(word)), "{word}: {found:?}");
    };
    let dirs = store.dirs();
    let base = store.layer(&chains[0]).unwrap().unwrap();
    let (layer, aside) = (dirs.layer(base.content), fixture.home.path().join("aside"));
    std::fs::rename(&layer, &aside).unwrap();
    damages("is missing");
    std::fs::rename(&aside, &layer).unwrap();
    std::fs::create_dir(dirs.snapshots().join("99")).unwrap();
    damages("belongs to no snapshot");
    std::fs::remove_dir(dirs.snapshots().join("99")).unwrap();
    let blob = dirs.blob(&Digest::of(b"base"));
    std::fs::write(&blob, "bass").unwrap();
    damages("another digest");
    std::fs::write(&blob, "base").unwrap();
    let wrong = Snapshot { diff_id: Some(Digest::of(b"other").into()), parent_key: "other".into(), ..base };
    store.metadata().write(|change| change.put(&wrong)).unwrap();
    damages("its chain should be");
    damages("has no number");
}

#[test]
fn layer_whose_files_a_power_failure_may_have_cost_is_named() {
    let fixture = Fixture::new();
    let store = fixture.store();
    store.prepare(&space(), "k", "", Labels::new()).unwrap();
    let committed = store.commit(&space(), "name", "k", "", Labels::new()).unwrap();
    assert!(committed.unsynced.is_some() && committed.usage.is_none());
    assert_eq!(store.fsck().unwrap(), Vec::<String>::new(), "the machine is still up");
    let before = Snapshot { unsynced: Some("another boot".into()), ..committed };
    store.metadata().write(|change| change.put(&before)).unwrap();
    assert!(store.fsck().unwrap()[0].contains("went down"));
    store.settle(before.content, None).unwrap();
    let settled = store.stat(&space(), "name").unwrap();
    assert!(settled.unsynced.is_none() && settled.usage.unwrap().inodes == 1);
    let known = Usage { size: 4096, inodes: 7 };
    store.settle(before.content, Some(known)).unwrap();
    assert_eq!(store.stat(&space(), "name").unwrap().usage, Some(known), "it need not be counted");
}

#[test]
fn records_read_back_as_they_were_written() {
    let snapshot = Snapshot {
        id: 1,
        content: 2,
        space: space(),
        key: "k8s.io/1/a \"b\"".into(),
        kind: Kind::View,
        parent: Some(0),
        parent_key: "p".into(),
        labels: Labels::from([("x".into(), "y\n".into())]),
        created: SystemTime::now(),
        updated: SystemTime::UNIX_EPOCH,
        usage: Some(Usage { size: u64::MAX, inodes: 0 }),
        unsynced: Some("boot".into()),
        diff_id: Some(Digest::of(b"").into()),
        chain_id: None,
    };
    let bytes = metadata::encode(&snapshot).unwrap();
    assert_eq!(metadata::decode::<Snapshot>(&bytes).unwrap(), snapshot);
}

#[test]
fn a_layer_that_gets_its_name_last_is_one_like_any_other() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let (a, b) = (DiffId::from(Digest::of(b"a")), DiffId::from(Digest::of(b"b")));
    let (below, above) = (ChainId::of(None, &a), ChainId::of(Some(&ChainId::of(None, &a)), &b));
    drop(store.begin_unnamed_layer().unwrap());
    assert_eq!(fixture.directories(), 0, "dropped without a name");
    let name = |chain, parent: Option<&ChainId>| store.begin_unnamed_layer().unwrap().name(chain, parent).unwrap();
    for (chain, parent, diff) in [(below, None, a), (above, Some(&below), b)] {
        let Begin::Staging(staging) = name(chain, parent) else { panic!("it is not there yet") };
        staging.commit(diff, Usage::default()).unwrap();
        let Begin::Present(layer) = name(chain, parent) else { panic!("it is there") };
        assert_eq!(layer.chain_id, Some(chain));
    }
    assert_eq!((fixture.directories(), store.fsck().unwrap()), (2, Vec::new()));
}
