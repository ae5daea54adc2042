//! kill -9 at random moments of what the command does with images: load, pull, import (each unpacks), remove, prune. After each kill the store has no
//! fault, an image is there whole or not at all, what was there before is untouched, and the same command succeeds.

use std::os::fd::AsFd as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use lamina_snapshotter::image::operations;
use lamina_snapshotter::store::Store;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use support::random::Random;
use support::tree::Body;
use support::{Tree, View, machine, needs};

use crate::command::Images;
use support::registry::Server;

/// Kills in all crash tests together, of which seven in ten are here and the others meet the daemon.
fn kills(per_cent: u64) -> u64 {
    machine::number_from_env("LAMINA_CRASH_ROUNDS", 200) * per_cent / 100
}

/// Three layers called `app`, and `kept`, which has the lowest of them too: some hundred files, a hard link, a whiteout, something large.
fn layout(images: &Images) -> String {
    let dir = images.scratch("made");
    machine::shell(&format!(
        "umask 022; mkdir -p {0}/one/etc {0}/two/etc {0}/three/etc {0}/other; cd {0}
         for at in $(seq 150); do echo $at >one/etc/$at; done; head -c 600000 /dev/urandom >one/noise; ln one/noise one/again
         for at in $(seq 60); do echo two >two/etc/$at; done; : >two/etc/.wh.100; head -c 300000 /dev/urandom >two/more
         mkdir three/etc/deep; chmod 700 three/etc/deep; echo x >three/etc/deep/x; head -c 1500000 /dev/urandom >three/large
         echo other >other/file
         for layer in one two three other; do tar --numeric-owner --sort=name -cf $layer.tar -C $layer .; done
         umoci init --layout layout
         for image in 'app one two three' 'kept one other'; do
             set -- $image; name=$1; shift
             umoci new --image layout:$name; for layer; do umoci raw add-layer --image layout:$name $layer.tar; done
         done",
        dir.display()
    ));
    dir.to_str().expect("UTF-8").to_owned()
}

/// What an image is on disk, from the lowest layer up; none if it is not there.
fn on_disk(store: &Store, name: &str) -> Option<Vec<Tree>> {
    let full: lamina_snapshotter::image::Reference = name.parse().expect("a name");
    if store.images().expect("images").iter().all(|image| image.reference != full.to_string()) {
        return None;
    }
    let found = operations::inspect(store, name).expect("inspect");
    let layer = |layer: operations::InspectedLayer| {
        let mut tree = Tree::read(&layer.directory.expect("every layer of an image is there"));
        // The mark of a deletion is as old as its unpacking.
        let marks = tree.0.values_mut().filter(|node| node.body == Body::CharDevice(0));
        marks.for_each(|node| node.mtime = None);
        tree
    };
    Some(found.layers.into_iter().map(layer).collect())
}

#[track_caller]
fn assert_same(found: &[Tree], expected: &[Tree], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    found.iter().zip(expected).for_each(|(found, expected)| found.assert_same(expected, View::ALL));
}

/// One operation, and what must be so before it.
struct Operation {
    name: &'static str,
    words: Vec<String>,
    /// What it works on.
    image: String,
    before: Before,
    kills: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// The image is not there.
    Absent,
    /// It is.
    Present,
    /// It was, and only its name is gone.
    Forgotten,
}

struct Crash {
    images: Images,
    random: Random,
    kept: Vec<Tree>,
    /// How many layers and blobs `kept` alone has.
    base: (usize, usize),
}

impl Crash {
    fn store(&self) -> Store {
        Store::open(&self.images.root()).expect("the store opens")
    }

    fn counts(store: &Store) -> (usize, usize) {
        let layers = lamina_snapshotter::snapshot::Space::lamina();
        (store.list(&layers).expect("list").len(), store.blobs().expect("blobs").len())
    }

    /// Takes an image away, with all that only it refers to.
    fn clear(&self, image: &str) {
        let store = self.store();
        if on_disk(&store, image).is_some() {
            operations::remove(&store, image).expect("remove");
        }
        store.prune().expect("prune");
        assert_eq!(Crash::counts(&store), self.base, "prune removes what nothing refers to, and nothing else");
    }

    fn prepare(&self, operation: &Operation, fill: &Operation) {
        self.clear(&operation.image);
        if operation.before == Before::Absent {
            return;
        }
        self.images.run(&fill.words);
        if operation.before == Before::Forgotten {
            operations::remove(&self.store(), &operation.image).expect("remove");
        }
    }

    /// Runs the operation and kills it after `moment`, unless it was done before; answers which, and how long it took.
    fn killed(&self, operation: &Operation, moment: Duration) -> (bool, Duration) {
        let begun = Instant::now();
        let mut child = self.images.command(&operation.words).stdout(Stdio::null()).spawn().expect("it starts");
        let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).expect("pidfd_open");
        let timeout = Timespec::try_from(moment).expect("short");
        let ended =
            poll(&mut [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)], Some(&timeout)).expect("poll");
        let took = begun.elapsed();
        if ended == 0 {
            pidfd_send_signal(&process, Signal::KILL).expect("kill");
        }
        let status = child.wait().expect("wait");
        assert!(status.success() || ended == 0, "{}: {status}", operation.name);
        (!status.success(), took)
    }

    /// What must be so after a kill.
    fn check(&self, operation: &Operation, expected: &[Tree]) {
        let store = self.store();
        assert_eq!(store.fsck().expect("fsck"), Vec::<String>::new(), "{}", operation.name);
        assert_same(&on_disk(&store, "kept").expect("kept"), &self.kept, "kept");
        if let Some(found) = on_disk(&store, &operation.image) {
            assert_same(&found, expected, operation.name);
        }
        assert!(self.images.files_below("ingest").is_empty(), "opening the store removes what is half-made");
    }

    /// Kills it as often as it says, each time at another moment of its whole length.
    fn rounds(&mut self, operation: &Operation, fill: &Operation) {
        self.prepare(operation, fill);
        self.images.run(&fill.words);
        let expected = on_disk(&self.store(), &operation.image).expect("it is there");
        self.prepare(operation, fill);
        let (_, mut length) = self.killed(operation, Duration::from_secs(3600));
        let (mut kills, mut missed) = (0, 0);
        while kills < operation.kills {
            self.prepare(operation, fill);
            let moment = Duration::from_micros(self.random.below(length.as_micros() as u64));
            let (killed, took) = self.killed(operation, moment);
            self.check(operation, &expected);
            if killed {
                kills += 1;
            } else {
                // It was faster than the one that was measured.
                (missed, length) = (missed + 1, length.min(took));
            }
            let again = self.images.output(&operation.words);
            let text = String::from_utf8_lossy(&again.stderr);
            let done = operation.before == Before::Present && text.contains("no image is called");
            assert!(again.status.success() || done, "{} again: {text}", operation.name);
            let found = on_disk(&self.store(), &operation.image);
            assert_eq!(found.is_some(), operation.before == Before::Absent, "{}", operation.name);
            found.iter().for_each(|found| assert_same(found, &expected, operation.name));
        }
        self.clear(&operation.image);
        println!("{}: {kills} kills within {length:?}, {missed} came too late", operation.name);
    }
}

#[test]
fn killed_at_any_moment_the_store_is_whole_and_the_same_command_succeeds() {
    needs!(machine::root(), machine::program("umoci"), Server::missing());
    let seed = u64::from(std::process::id()) | 1 << 42;
    println!("seed {seed}");
    let images = Images::new();
    let made = layout(&images);
    let server = Server::open();
    let remote = format!("localhost:{}/app:1", server.port);
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<String>>();
    machine::run(
        "skopeo",
        &words(&format!("copy --quiet --dest-tls-verify=false oci:{made}/layout:app docker://{remote}")),
    );
    let archive = format!("{made}/app.tar");
    machine::run("skopeo", &words(&format!("copy --quiet oci:{made}/layout:app oci-archive:{archive}")));
    machine::run("skopeo", &words(&format!("copy --quiet oci:{made}/layout:kept oci-archive:{made}/kept.tar")));
    images.run(&words(&format!("load {made}/kept.tar --tag kept")));
    let store = Store::open(&images.root()).expect("open");
    let (kept, base) = (on_disk(&store, "kept").expect("kept"), Crash::counts(&store));
    drop(store);
    let mut crash = Crash { images, random: Random(seed), kept, base };
    let load = format!("load {archive} --tag app");
    let operation = |name, line: &str, image: &str, before, kills| Operation {
        name,
        words: words(line),
        image: image.to_owned(),
        before,
        kills,
    };
    let fill = operation("fill", &load, "app", Before::Absent, 0);
    let own = [
        operation("load", &load, "app", Before::Absent, kills(20)),
        operation("pull", &format!("pull {remote}"), &remote, Before::Absent, kills(20)),
        operation("import", &format!("import {made}/one.tar imported"), "imported", Before::Absent, kills(15)),
    ];
    own.iter().for_each(|operation| crash.rounds(operation, operation));
    let other = [
        operation("remove", "remove app", "app", Before::Present, kills(7)),
        operation("prune", "prune", "app", Before::Forgotten, kills(8)),
    ];
    other.iter().for_each(|operation| crash.rounds(operation, &fill));
}
