//! What a soak compares: what stays must not grow, and of what comes and goes nothing may be left. It owns the counting, and knows no program under test.
//! Invariant: what can be equal must be; a bound stands only where the kernel or malloc(3) has a say, and says which.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A memory that grew by more did so with the cycles. What is below comes of pages that are touched late: a thread that is called for the first time,
/// an arena that malloc(3) keeps for it, a page of the program that nobody needed before. It holds for the space on disk too, where a database
/// grows by pages that it uses again.
const GROWTH_MAX_PER_CENT: u64 = 25;

/// From so many cycles on what the whole machine has is compared too: among the neighbours of a shorter soak, which come and go, that says nothing.
const ALONE_FROM: u64 = 1_000;

/// What a process has that stays from the first cycle to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    resident_kib: u64,
}

impl Held {
    fn by(pid: i32) -> Held {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").count();
        Held { descriptors, resident_kib: resident_kib(pid) }
    }
}

/// Resident memory of a process in KiB: VmRSS of /proc/PID/status, see proc_pid_status(5).
pub fn resident_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// What there is at one moment; the same moment of a cycle each time.
pub struct Figures {
    held: BTreeMap<&'static str, Held>,
    paths: BTreeSet<PathBuf>,
    bytes: u64,
    leftovers: BTreeSet<String>,
    mounts: String,
    machine: BTreeMap<String, u64>,
}

impl Figures {
    /// Of these processes, by what they are called; of everything below `dir`; and of what a container leaves behind, as the caller finds it.
    pub fn now(staying: &[(&'static str, i32)], dir: &Path, leftovers: Vec<String>) -> Figures {
        let (mut paths, mut bytes) = (BTreeSet::new(), 0);
        walk(dir, &mut |path, metadata| {
            bytes += metadata.blocks() * 512;
            paths.insert(path.to_owned());
        });
        Figures {
            held: staying.iter().map(|(name, pid)| (*name, Held::by(*pid))).collect(),
            paths,
            bytes,
            leftovers: leftovers.into_iter().collect(),
            mounts: fs::read_to_string("/proc/thread-self/mountinfo").expect("mounts"),
            machine: kernel_objects(),
        }
    }

    /// Panics where these, from after `cycles` more of them, are more than those before; prints both.
    #[track_caller]
    pub fn assert_flat_since(&self, before: &Figures, cycles: u64, who: &str) {
        for (name, now) in &self.held {
            let then = before.held[name];
            println!("{who}: {name}: {then:?}, after {cycles} cycles {now:?}");
            assert_eq!(now.descriptors, then.descriptors, "{who}: {name}");
            assert_bounded(then.resident_kib, now.resident_kib, &format!("{who}: KiB of {name}"));
        }
        println!(
            "{who}: {} names in {} bytes, then {} in {}",
            before.paths.len(),
            before.bytes,
            self.paths.len(),
            self.bytes
        );
        assert_eq!(self.paths, before.paths, "{who}");
        assert_bounded(before.bytes, self.bytes, &format!("{who}: bytes on disk"));
        assert_eq!(self.leftovers, before.leftovers, "{who}");
        assert_eq!(self.mounts, before.mounts, "{who}");
        for (name, now) in &self.machine {
            let then = before.machine[name];
            println!("{who}: {name}: {then}, then {now}");
            // One object a cycle that is left is as many.
            assert!(cycles < ALONE_FROM || *now < then + cycles, "{who}: {name}: {then}, then {now}");
        }
    }
}

#[track_caller]
fn assert_bounded(then: u64, now: u64, what: &str) {
    assert!(now <= then * (100 + GROWTH_MAX_PER_CENT) / 100, "{what}: {then}, then {now}");
}

fn walk(dir: &Path, see: &mut impl FnMut(&Path, &Metadata)) {
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let metadata = entry.metadata().expect("it stays");
        see(&entry.path(), &metadata);
        if metadata.is_dir() {
            walk(&entry.path(), see);
        }
    }
}

/// What the kernel has of what containers are made of: open files, cgroups of each hierarchy, mounts and namespaces.
///
/// A memory cgroup that was removed is counted until the last page that was charged to it is reclaimed, which is the kernel's business; it is left out.
fn kernel_objects() -> BTreeMap<String, u64> {
    let mut objects = BTreeMap::new();
    let files = fs::read_to_string("/proc/sys/fs/file-nr").expect("file-nr");
    let open = files.split_whitespace().next().and_then(|word| word.parse().ok());
    objects.insert("open files".to_owned(), open.expect("a number"));
    for line in fs::read_to_string("/proc/cgroups").unwrap_or_default().lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if !line.starts_with('#') && words[0] != "memory" {
            objects.insert(format!("cgroups of {}", words[0]), words[2].parse().expect("a number"));
        }
    }
    // Not every kernel has it, and in some these share a slab with others.
    for line in fs::read_to_string("/proc/slabinfo").unwrap_or_default().lines() {
        let words: Vec<&str> = line.split_whitespace().take(2).collect();
        if ["mnt_cache", "nsproxy", "pid_namespace", "net_namespace"].contains(&words[0]) {
            objects.insert(format!("slab {}", words[0]), words[1].parse().expect("a number"));
        }
    }
    objects
}

/// Everything below /sys/fs/cgroup and /run that is called after one of these containers.
pub fn named_after(ids: &BTreeSet<String>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![PathBuf::from("/sys/fs/cgroup"), PathBuf::from("/run")];
    while let Some(dir) = dirs.pop() {
        // What neighbours take away meanwhile is none of ours.
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if ids.iter().any(|id| name.contains(id)) {
                found.push(entry.path());
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                dirs.push(entry.path());
            }
        }
    }
    found
}
