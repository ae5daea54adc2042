//! What nothing refers to goes, and nothing else, while images are loaded and containers start: in the process that holds the store, and through the daemon,
//! where containerd's collector takes the part of prune.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lamina_snapshotter::digest::{ChainId, DiffId, Digest};
use lamina_snapshotter::image::{self, LoadOptions, Platform, Reference, UnpackOptions, operations};
use lamina_snapshotter::mount::Servers;
use lamina_snapshotter::snapshot::{Labels, Space};
use lamina_snapshotter::snapshotter::Snapshotter;
use lamina_snapshotter::store::Store;
use support::{lamina, machine, needs};
use tonic::Code;

use crate::daemon::{self, Daemon, code, source};
use crate::oci;

const THREADS: usize = 3;
const ROUNDS: usize = 12;

/// One file `base` in the layer that all share, one `own` in another.
fn archive(home: &Path, thread: usize) -> std::path::PathBuf {
    let dir = home.join(format!("archive-{thread}"));
    machine::shell(&format!(
        "umask 022; mkdir -p {0}/base {0}/own; cd {0}; echo base >base/base; echo {thread} >own/own
         for layer in base own; do tar --numeric-owner --mtime=@0 --sort=name -cf $layer.tar -C $layer .; done",
        dir.display()
    ));
    oci::pack(&dir, &[dir.join("base.tar"), dir.join("own.tar")], &format!("docker.io/lamina/own:{thread}"))
}

fn load(store: &Store, archive: &Path, name: &Reference) {
    let (platform, quiet) = (Platform::host(), |_| {});
    let unpack = UnpackOptions::default();
    let options = LoadOptions { name: Some(name), platform: &platform, unpack, progress: &quiet };
    image::load(store, archive, &options).expect("load");
}

/// Loads, starts, forgets the image under the running container, and ends it.
fn load_and_start(snapshotter: &Snapshotter, store: &Store, archive: &Path, thread: usize) {
    let (space, name): (Space, Reference) = (Space::lamina(), format!("own-{thread}").parse().expect("a name"));
    for round in 0..ROUNDS {
        load(store, archive, &name);
        let found = operations::inspect(store, &name.to_string()).expect("inspect");
        let top = &found.layers.last().expect("two layers").chain_id;
        let key = format!("container-{thread}-{round}");
        let mounts = snapshotter.prepare(&space, &key, top, Labels::new()).expect("prepare");
        operations::remove(store, &name.to_string()).expect("remove");
        let root = Path::new(&mounts[0].source);
        let read = |name: &str| fs::read_to_string(root.join(name)).expect("read");
        assert_eq!((read("own"), read("base")), (format!("{thread}\n"), "base\n".to_owned()));
        snapshotter.remove(&space, &key).expect("remove");
    }
}

#[test]
fn prune_takes_nothing_from_images_and_containers_that_come_meanwhile() {
    needs!(daemon::missing(), machine::program("gzip"));
    let home = tempfile::Builder::new().prefix("lamina-prune-").tempdir().expect("temporary directory");
    let archives: Vec<_> = (0..THREADS).map(|thread| archive(home.path(), thread)).collect();
    let store = Store::open(&home.path().join("store")).expect("open");
    let servers = Servers::new(store.clone(), lamina::binary().to_path_buf());
    let snapshotter = Snapshotter::start(store.clone(), servers).expect("start");
    let (ended, pruned) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let pruner = scope.spawn(|| {
            while !ended.load(Ordering::SeqCst) {
                let found = store.prune().expect("prune");
                pruned.fetch_add(found.layers, Ordering::SeqCst);
            }
        });
        let (snapshotter, store) = (&snapshotter, &store);
        let started = archives.iter().enumerate();
        let threads: Vec<_> = started
            .map(|(thread, archive)| scope.spawn(move || load_and_start(snapshotter, store, archive, thread)))
            .collect();
        let outcomes: Vec<_> = threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        ended.store(true, Ordering::SeqCst);
        pruner.join().expect("the pruner");
        assert!(outcomes.iter().all(Result::is_ok));
    });
    store.prune().expect("prune");
    println!("{pruned:?} layers pruned meanwhile");
    assert_eq!(store.fsck().expect("fsck"), Vec::<String>::new());
    assert_eq!((store.list(&Space::lamina()).expect("list").len(), store.blobs().expect("blobs").len()), (0, 0));
}

/// What containerd does for one image and one container of it: unpack each layer or be told that it is there, run, and collect all of it.
fn unpack_run_and_collect(daemon: &Daemon, thread: usize, chains: &[String]) -> usize {
    const REF: &str = "containerd.io/snapshot.ref";
    let mut client = daemon.client(&format!("lamina-{thread}"));
    let mut unpacked = 0;
    for round in 0..ROUNDS {
        let mut names = vec![String::new()];
        for chain in chains {
            let (below, key) = (names[names.len() - 1].clone(), format!("ns/{round}/extract-1-a {chain}"));
            let name = match client.prepare_with(&key, &below, &[(REF, chain)]) {
                Ok(mounts) => {
                    let upper = mounts[0].options.iter().find_map(|option| option.strip_prefix("upperdir="));
                    let upper = Path::new(upper.unwrap_or(&mounts[0].source)).to_owned();
                    fs::write(upper.join(&chain[chain.len() - 8..]), chain).expect("write");
                    unpacked += 1;
                    let name = format!("ns/{round}/{chain}");
                    client.commit(&name, &key).expect("commit");
                    name
                }
                Err(status) => {
                    assert_eq!(status.code(), Code::AlreadyExists, "{status}");
                    let found =
                        client.list(&[&format!("labels.\"{REF}\"=={chain},parent==\"{below}\"")]).expect("list");
                    found[0].name.clone()
                }
            };
            names.push(name);
        }
        let mounted = source(&client.prepare("ns/1/container", &names[names.len() - 1]).expect("prepare"));
        for chain in chains {
            assert_eq!(&fs::read_to_string(mounted.join(&chain[chain.len() - 8..])).expect("read"), chain);
        }
        client.remove("ns/1/container").expect("remove");
        names[1..].iter().rev().for_each(|name| client.remove(name).expect("remove"));
    }
    unpacked
}

#[test]
fn collecting_takes_no_layer_that_others_are_shown_meanwhile() {
    needs!(daemon::missing());
    let mut daemon = Daemon::start();
    let diffs = [b"one", b"two"].map(|text| DiffId::from(Digest::of(text)));
    let chains: Vec<String> = ChainId::chains(&diffs).iter().map(ToString::to_string).collect();
    let unpacked: usize = std::thread::scope(|scope| {
        let (daemon, chains) = (&daemon, &chains);
        let threads = (0..THREADS).map(|thread| scope.spawn(move || unpack_run_and_collect(daemon, thread, chains)));
        threads.collect::<Vec<_>>().into_iter().map(|thread| thread.join().expect("no failure")).sum()
    });
    println!("{unpacked} of {} layers were unpacked, the others were there", THREADS * ROUNDS * chains.len());
    assert_eq!(code(daemon.client("lamina-0").mounts("ns/1/container")), Some(Code::NotFound));
    daemon.assert_empty();
    daemon.kill();
    daemon.check();
}
