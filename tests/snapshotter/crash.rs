//! kill -9 at random moments. After each the store is whole, what was answered is there, and what was interrupted can be repeated.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::process::Stdio;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use lamina_snapshotter::digest::{ChainId, DiffId, Digest};
use lamina_snapshotter::snapshot::{Labels, Space, Usage};
use lamina_snapshotter::store::{Begin, BeginBlob, Store};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::random::Random;
use support::{machine, needs};
use tonic::{Code, Status};

use crate::daemon::{self, Client, Daemon, PLUGIN, source};

/// Kills of the daemon: three in ten of those of all crash tests. `images/kills.rs` has the others.
fn rounds() -> u64 {
    machine::number_from_env("LAMINA_CRASH_ROUNDS", 200) * 3 / 10
}

/// The longest that a round runs before its kill.
const ROUND_MICROSECONDS: u64 = 200_000;

#[derive(Debug, Clone, PartialEq)]
enum Op {
    Prepare { key: String, parent: String },
    Write { key: String },
    Commit { name: String, key: String },
    Remove { key: String },
}

/// What the daemon has answered: the snapshots by key, with their parents and whether they are committed.
#[derive(Debug, Default)]
struct Answered(BTreeMap<String, (String, bool)>);

fn apply(client: &mut Client, op: &Op) -> Result<(), Status> {
    match op {
        Op::Prepare { key, parent } => client.prepare(key, parent).map(drop),
        Op::Write { key } => {
            let mounts = client.mounts(key)?;
            fs::write(source(&mounts).join(key), key).map_err(|error| Status::unavailable(error.to_string()))
        }
        Op::Commit { name, key } => client.commit(name, key),
        Op::Remove { key } => client.remove(key),
    }
}

impl Answered {
    fn note(&mut self, op: &Op) {
        match op {
            Op::Prepare { key, parent } => drop(self.0.insert(key.clone(), (parent.clone(), false))),
            Op::Write { .. } => {}
            Op::Commit { name, key } => {
                let (parent, _) = self.0.remove(key).expect("it was prepared");
                self.0.insert(name.clone(), (parent, true));
            }
            Op::Remove { key } => drop(self.0.remove(key)),
        }
    }

    /// What a round does: a chain grows by one, and now and then a leaf goes.
    fn next(&self, at: u64, random: &mut Random) -> Vec<Op> {
        let committed: Vec<&String> = self.0.iter().filter(|(_, (_, done))| *done).map(|(key, _)| key).collect();
        let parent = match committed.len() as u64 {
            0 => String::new(),
            count => committed[random.below(count) as usize].clone(),
        };
        let key = format!("key-{at}");
        let mut ops = vec![Op::Prepare { key: key.clone(), parent }, Op::Write { key: key.clone() }];
        ops.push(Op::Commit { name: format!("name-{at}"), key });
        let used: Vec<&String> = self.0.values().map(|(parent, _)| parent).collect();
        let leaf = self.0.keys().find(|key| !used.contains(key) && ops.iter().all(|op| !op.names(key)));
        if let (true, Some(leaf)) = (self.0.len() > 4, leaf) {
            ops.push(Op::Remove { key: leaf.clone() });
        }
        ops
    }
}

impl Op {
    fn names(&self, wanted: &str) -> bool {
        matches!(self, Op::Prepare { parent, .. } if parent == wanted)
    }

    /// What may be answered to a repetition, if the interrupted one was done after all.
    fn done_before(&self) -> &'static [Code] {
        match self {
            Op::Prepare { .. } => &[Code::AlreadyExists],
            Op::Write { .. } => &[],
            Op::Commit { .. } | Op::Remove { .. } => &[Code::NotFound],
        }
    }
}

#[test]
fn a_killed_daemon_loses_nothing_that_it_answered() {
    needs!(daemon::missing());
    let seed = u64::from(std::process::id()) | 1 << 40;
    println!("seed {seed}, {} rounds", rounds());
    let mut random = Random(seed);
    let mut daemon = Daemon::start();
    let mut answered = Answered::default();
    let (mut at, mut interrupted) = (0, 0);
    for round in 0..rounds() {
        let moment = Duration::from_micros(random.below(ROUND_MICROSECONDS));
        let pid = daemon.pid();
        let mut in_flight = None;
        std::thread::scope(|scope| {
            let (ended, end) = channel::<()>();
            let worker = scope.spawn(|| {
                // Held until the worker ends: its drop tells the other side.
                let _ended = ended;
                let mut client = daemon.client(PLUGIN);
                loop {
                    at += 1;
                    for op in answered.next(at, &mut random) {
                        match apply(&mut client, &op) {
                            Ok(()) => answered.note(&op),
                            Err(status) => return (op, status),
                        }
                    }
                }
            });
            if end.recv_timeout(moment) == Err(RecvTimeoutError::Timeout) {
                kill(pid, Signal::SIGKILL).unwrap();
            }
            let (op, status) = worker.join().unwrap();
            assert!(matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled), "{op:?}: {status}");
            in_flight = Some(op);
        });
        daemon.kill();
        daemon.check();
        daemon.restart();
        let mut client = daemon.client(PLUGIN);
        let op = in_flight.unwrap();
        interrupted += 1;
        match apply(&mut client, &op) {
            Ok(()) => {}
            Err(status) => assert!(op.done_before().contains(&status.code()), "round {round}, {op:?}: {status}"),
        }
        if !matches!(&op, Op::Write { .. }) {
            answered.note(&op);
        }
        verify(&mut client, &answered);
    }
    println!("{interrupted} operations interrupted, {at} snapshots made");
    daemon.clear();
    daemon.kill();
    daemon.check();
}

/// Every snapshot is there with its kind and parent, none is too many, and the newest committed one holds what was written.
fn verify(client: &mut Client, answered: &Answered) {
    let found = client.list(&[]).expect("list");
    let found: BTreeMap<String, (String, bool)> =
        found.into_iter().map(|info| (info.name, (info.parent, info.kind == 3))).collect();
    assert_eq!(found, answered.0);
    let newest =
        found.iter().filter(|(_, (_, committed))| *committed).map(|(name, _)| name).max_by_key(|name| name.len());
    if let Some(name) = newest {
        let view = source(&client.view("look", name).expect("view"));
        let key = name.replace("name-", "key-");
        assert_eq!(fs::read_to_string(view.join(&key)).expect("read"), key);
        client.remove("look").expect("remove");
    }
}

/// Two images that share a layer; one of them is forgotten.
fn fill(store: &Store, round: u64) -> Vec<ChainId> {
    let mut kept = Vec::new();
    for (image, forgotten) in [("kept", false), ("forgotten", true)] {
        let mut chain: Option<ChainId> = None;
        for layer in 0..4 {
            let text = if layer == 0 { "shared".to_owned() } else { format!("{image}-{layer}-{round}") };
            let digest = Digest::of(text.as_bytes());
            if let BeginBlob::Staging(mut staging) = store.begin_blob(&digest, None).expect("begin") {
                staging.write_all(text.as_bytes()).expect("write");
                staging.commit().expect("commit");
            }
            let diff = DiffId::from(digest);
            let own = ChainId::of(chain.as_ref(), &diff);
            if let Begin::Staging(staging) = store.begin_layer(own, chain.as_ref()).expect("begin") {
                fs::write(staging.path().join("file"), &text).expect("write");
                staging.commit(diff, Usage::default()).expect("commit");
            }
            chain = Some(own);
        }
        let top = chain.expect("four layers");
        if !forgotten {
            let key = format!("container-{round}");
            store.prepare(&Space::lamina(), &key, &top.to_string(), Labels::new()).expect("prepare");
            kept.push(top);
        }
    }
    kept
}

#[test]
fn a_killed_prune_deletes_nothing_that_is_used_and_can_be_repeated() {
    needs!(machine::root());
    let home = tempfile::Builder::new().prefix("lamina-prune-").tempdir().unwrap();
    let mut random = Random(u64::from(std::process::id()) | 1 << 41);
    let prune = || {
        let mut command = std::process::Command::new(support::lamina::snapshotter_binary());
        command.args(["image", "prune", "--root"]).arg(home.path()).stdout(Stdio::null());
        command.spawn().unwrap()
    };
    let mut kept = Vec::new();
    for round in 0..rounds().min(10) {
        kept.extend(fill(&Store::open(home.path()).unwrap(), round));
        let mut child = prune();
        let (held, end) = channel::<()>();
        assert_eq!(end.recv_timeout(Duration::from_micros(random.below(30_000))), Err(RecvTimeoutError::Timeout));
        drop(held);
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        let damage = Store::open(home.path()).unwrap().fsck().unwrap();
        assert_eq!(damage, Vec::<String>::new());
        assert!(prune().wait().unwrap().success());
        let store = Store::open(home.path()).unwrap();
        assert!(kept.iter().all(|chain| store.layer(chain).unwrap().is_some()));
        // The shared layer, and for each round three of the container's and its own.
        assert_eq!(store.list(&Space::lamina()).unwrap().len(), 1 + 4 * kept.len());
        assert!(store.blobs().unwrap().is_empty());
    }
}
