//! Bounds: descriptors and memory of the server do not grow with what was once touched.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit};
use support::lamina::{Lamina, binary};
use support::machine::number_from_env;
use support::{LaminaMount, Layers, machine, needs, skip};

const FILES_PER_DIR: u64 = 1000;

/// A lower layer with `count` small files.
fn many_files(count: u64) -> Layers {
    let mut layers = Layers::new(&[&[]]);
    for at in 0..count {
        let dir = layers.lowers[0].join(format!("d{}", at / FILES_PER_DIR));
        if at % FILES_PER_DIR == 0 {
            fs::create_dir(&dir).unwrap();
        }
        File::create(dir.join(format!("f{at}"))).unwrap().write_all(b"x").unwrap();
    }
    layers.note_lowers();
    layers
}

fn path_of(root: &Path, at: u64) -> std::path::PathBuf {
    root.join(format!("d{}/f{at}", at / FILES_PER_DIR))
}

fn open_descriptors(mount: &LaminaMount) -> usize {
    fs::read_dir(format!("/proc/{}/fd", mount.server_pid())).unwrap().count()
}

#[test]
fn hundred_thousand_files_are_opened_read_and_closed() {
    needs!(machine::mounts(), machine::program("prlimit"));
    let layers = many_files(100_000);
    let mount = Lamina::on(&layers).through(&["prlimit", "--nofile=4096:4096"]).mount();
    for at in 0..100_000 {
        assert_eq!(fs::read(path_of(mount.path(), at)).unwrap_or_else(|error| panic!("file {at}: {error}")), b"x");
    }
    assert!(open_descriptors(&mount) <= 4096);
}

/// Processes that hold files open: the limit of one may be below what all need.
const HOLDERS: u64 = 4;
const HELD_EACH: u64 = 5000;

/// In a second run of this binary: the mountpoint and the first file that it holds.
const HOLD: &str = "LAMINA_HOLD";

/// More files held open by the users than the server may have descriptors: handles are not descriptors.
#[test]
fn twenty_thousand_files_are_held_open_by_a_server_with_few_descriptors() {
    needs!(machine::mounts(), machine::program("prlimit"));
    if rustix::process::getrlimit(Resource::Nofile).maximum.is_some_and(|most| most < HELD_EACH + 100) {
        skip!("a process may not open {HELD_EACH} files here");
    }
    let layers = many_files(HOLDERS * HELD_EACH);
    let mount = Lamina::on(&layers).through(&["prlimit", "--nofile=4096:4096"]).mount();
    let own = std::env::current_exe().unwrap();
    let start = |holder: u64| {
        let mut command = Command::new(&own);
        command.args(["limits::holds_files_open_in_a_second_process", "--exact", "--nocapture"]);
        command.env(HOLD, format!("{} {}", mount.path().display(), holder * HELD_EACH));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut holders: Vec<_> = (0..HOLDERS).map(start).collect();
    for holder in &mut holders {
        let lines = BufReader::new(holder.stdout.as_mut().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line.contains("HELD")), "a holder failed to open its files");
    }
    assert!(open_descriptors(&mount) <= 4096);
    for holder in &mut holders {
        drop(holder.stdin.take());
    }
    assert!(holders.iter_mut().all(|holder| holder.wait().unwrap().success()), "a holder found a wrong byte");
    assert!(open_descriptors(&mount) <= 4096);
}

/// Not a test of its own: the part that the one above runs in other processes.
#[test]
fn holds_files_open_in_a_second_process() {
    let Ok(order) = std::env::var(HOLD) else { return };
    let (root, first) = order.rsplit_once(' ').unwrap();
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let first: u64 = first.parse().unwrap();
    let written = |at: u64| at.is_multiple_of(20);
    let open =
        |at| OpenOptions::new().read(true).write(written(at)).open(path_of(Path::new(root), at)).map(|file| (at, file));
    let held: Vec<(u64, File)> =
        (first..first + HELD_EACH).map(|at| open(at).unwrap_or_else(|error| panic!("file {at}: {error}"))).collect();
    println!("HELD");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    for (at, file) in &held {
        if written(*at) {
            file.write_all_at(b"yz", 1).unwrap();
            // Unlinked while open: it keeps its content.
            fs::remove_file(path_of(Path::new(root), *at)).unwrap();
        }
        let mut content = [0; 8];
        let length = file.read_at(&mut content, 0).unwrap();
        assert_eq!(&content[..length], if written(*at) { b"xyz".as_slice() } else { b"x" }, "file {at}");
    }
}

/// fuse-overlayfs keeps a node of each name it has ever seen, #238: 13 GB after a walk. LAMINA_WALK_FILES=1000000 for the full size.
#[test]
fn memory_is_given_back_when_the_kernel_forgets() {
    needs!(machine::mounts());
    let count = number_from_env("LAMINA_WALK_FILES", 100_000);
    let layers = many_files(count);
    let mount = LaminaMount::new(&layers);
    // The first walk of a small part fills the pools of the allocator: the measure is growth with the number of files.
    walk(mount.path(), 1);
    let before = mount.resident_kib();
    let seen = walk(mount.path(), usize::MAX);
    assert_eq!(seen, count);
    let full = mount.resident_kib();
    mount.drop_caches();
    let after = after_forgetting(&mount, 2 * before);
    println!("VmRSS before {before} KiB, after the walk {full} KiB, after drop_caches {after} KiB, {count} files");
    assert!(after <= 2 * before, "VmRSS was {before} KiB, is {after} KiB ({full} KiB before the kernel forgot)");
}

/// Resident memory once the server has taken every FORGET from the queue. They have no reply: the server is asked for its inodes until only
/// a few are left. The thread of the last one may still be giving memory back then: it gets a bounded number of further questions.
fn after_forgetting(mount: &LaminaMount, enough: u64) -> u64 {
    let stats = || machine::run(binary().to_str().unwrap(), &["stats", mount.path().to_str().unwrap()]);
    let inodes = |text: String| text.lines().find_map(|line| line.strip_prefix("# INODES: ")?.parse::<u64>().ok());
    while inodes(stats()).unwrap() > INODES_LEFT_MAX {}
    let questions = (0..200).map(|_| stats());
    questions.map(|_| mount.resident_kib()).find(|kib| *kib <= enough).unwrap_or_else(|| mount.resident_kib())
}

/// What the kernel may still hold when it was told to forget: the root, and what it asked about since.
const INODES_LEFT_MAX: u64 = 10;

fn walk(root: &Path, dirs_max: usize) -> u64 {
    let mut seen = 0;
    for dir in fs::read_dir(root).unwrap().take(dirs_max) {
        for file in fs::read_dir(dir.unwrap().path()).unwrap() {
            seen += file.unwrap().metadata().unwrap().len();
        }
    }
    seen
}
