//! How many requests a sequence of calls costs: the part of its price that does not depend on the machine. `lamina-fs stats` is read before
//! and after.
//!
//! Two things make the counts exact. No test empties the caches of the machine, only those of its own mount, see `machine::forget_names`. And
//! the servers here have one thread: it takes requests in the order in which they came, so what was asked before the counters is counted when
//! they are told, also what no call waits for. FORGET alone is queued apart, and not counted: it has no reply, so nobody pays for it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Output;

use support::lamina::{Lamina, binary};
use support::{LaminaMount, Layers, dir, file, machine, needs, symlink};

/// Requests by opcode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Requests(BTreeMap<String, u64>);

impl Requests {
    fn parse(json: &str) -> Requests {
        let between = |line: &str, from: &str, to: &str| {
            let rest = line.split_once(from)?.1;
            Some(rest.split_once(to)?.0.to_owned())
        };
        let row = |line| Some((between(line, "\"opcode\":\"", "\"")?, between(line, "\"count\":", ",")?.parse().ok()?));
        let awaited = |(opcode, _): &(String, u64)| opcode != "FORGET";
        Requests(json.lines().filter_map(row).filter(awaited).collect())
    }

    pub(super) fn so_far(mount: &LaminaMount) -> Requests {
        Requests::parse(&machine::run(&program(), &["stats", path(mount), "--format", "json"]))
    }

    fn since(mut self, before: &Requests) -> Requests {
        for (opcode, count) in &before.0 {
            *self.0.get_mut(opcode).unwrap_or_else(|| panic!("{opcode} is no longer counted")) -= count;
        }
        self.0.retain(|_, count| *count > 0);
        self
    }

    pub(super) fn count(&self, opcode: &str) -> u64 {
        self.0.get(opcode).copied().unwrap_or(0)
    }

    fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

fn program() -> String {
    binary().to_str().unwrap().to_owned()
}

fn path(mount: &LaminaMount) -> &str {
    mount.path().to_str().unwrap()
}

fn cost(mount: &LaminaMount, sequence: impl Fn()) -> Requests {
    let before = Requests::so_far(mount);
    sequence();
    Requests::so_far(mount).since(&before)
}

#[track_caller]
fn assert_cost(mount: &LaminaMount, at_most: u64, sequence: impl Fn()) {
    let spent = cost(mount, sequence);
    assert!(spent.total() <= at_most, "at most {at_most} expected: {spent:?}");
}

/// The same for what is free once it has been done, and once more: after a READ the kernel asks for the time of the access.
#[track_caller]
fn assert_free_when_warm(mount: &LaminaMount, sequence: impl Fn()) {
    sequence();
    sequence();
    assert_cost(mount, 0, || (0..10).for_each(|_| sequence()));
}

fn one_thread(layers: &Layers) -> LaminaMount {
    Lamina::on(layers).option("threaded=0").mount()
}

/// A directory `d` below the root, for the reader opens the root itself; everything in the lower layer.
fn mounted() -> (Layers, LaminaMount) {
    let layers = Layers::new(&[&[dir("d"), file("d/f", "content"), symlink("d/s", "f")], &[dir("d")]]);
    let mount = one_thread(&layers);
    (layers, mount)
}

fn read(path: &Path) -> Vec<u8> {
    let mut data = Vec::new();
    File::open(path).unwrap().read_to_end(&mut data).unwrap();
    data
}

fn create(path: &Path) {
    OpenOptions::new().write(true).create_new(true).open(path).unwrap().write_all(b"new").unwrap();
}

#[test]
fn reading_the_counters_costs_nothing() {
    needs!(machine::mounts());
    let (_layers, mount) = mounted();
    fs::metadata(mount.join("d/f")).unwrap();
    assert_cost(&mount, 0, || drop(Requests::so_far(&mount)));
}

#[test]
fn warm_stat_is_free() {
    needs!(machine::mounts());
    let (_layers, mount) = mounted();
    assert_free_when_warm(&mount, || assert_eq!(fs::metadata(mount.join("d/f")).unwrap().len(), 7));
}

#[test]
fn warm_stat_of_a_missing_name_is_free() {
    needs!(machine::mounts());
    let (_layers, mount) = mounted();
    assert_free_when_warm(&mount, || assert!(!mount.join("d/missing").exists()));
}

#[test]
fn warm_readlink_is_free() {
    needs!(machine::mounts());
    let (_layers, mount) = mounted();
    assert_free_when_warm(&mount, || assert_eq!(fs::read_link(mount.join("d/s")).unwrap(), Path::new("f")));
}

#[test]
fn fstat_of_an_open_file_is_free() {
    needs!(machine::mounts());
    let (_layers, mount) = mounted();
    let open = File::open(mount.join("d/f")).unwrap();
    assert_free_when_warm(&mount, || assert_eq!(open.metadata().unwrap().len(), 7));
}

#[test]
fn warm_open_read_close_is_free() {
    needs!(machine::mounts());
    let (_layers, mount) = mounted();
    assert_free_when_warm(&mount, || assert_eq!(read(&mount.join("d/f")), b"content"));
}

/// Root of the host may have the kernel read ahead by 512 KiB; the kernel's own measure makes 64 requests of this.
#[test]
fn a_large_file_is_read_in_few_requests() {
    needs!(machine::mounts(), machine::root(), machine::writable("/sys"));
    let layers = Layers::new(&[&[file("large", "")]]);
    fs::write(layers.lowers[0].join("large"), vec![7; 8 << 20]).unwrap();
    let mount = one_thread(&layers);
    let spent = cost(&mount, || assert!(read(&mount.join("large")).iter().all(|byte| *byte == 7)));
    assert!(spent.count("READ") <= 24, "{spent:?}");
}

#[test]
fn stat_after_a_long_listing_is_free() {
    needs!(machine::mounts());
    let names: Vec<String> = (0..300).map(|at| format!("file{at}")).collect();
    let entries: Vec<_> = names.iter().map(|name| file(name, "x")).collect();
    let layers = Layers::new(&[&entries]);
    let mount = one_thread(&layers);
    machine::run("ls", &["-l", path(&mount)]);
    let stat = || names.iter().for_each(|name| assert_eq!(fs::metadata(mount.join(name)).unwrap().len(), 1));
    assert_cost(&mount, 0, stat);
}

/// OPENDIR, and RELEASEDIR that nobody waits for. After a READDIR the kernel asks for the time of the access, once.
#[test]
fn warm_listing_costs_two() {
    needs!(machine::mounts());
    let (_layers, mount) = mounted();
    let list = || assert_eq!(fs::read_dir(mount.join("d")).unwrap().count(), 2);
    list();
    list();
    assert_cost(&mount, 2, list);
}

/// READDIRPLUS, and READDIR that finds the end, between the same.
#[test]
fn cold_listing_costs_four() {
    needs!(machine::mounts());
    let (_layers, mount) = mounted();
    assert!(fs::metadata(mount.join("d")).unwrap().is_dir());
    assert_cost(&mount, 4, || assert_eq!(fs::read_dir(mount.join("d")).unwrap().count(), 2));
}

/// LOOKUP, CREATE, GETXATTR of security.capability, WRITE. The preparation pays for the directory's attributes, which the kernel asks
/// for again after each change of it, and lets the kernel learn that no file is opened or released.
#[test]
fn create_write_close_costs_four() {
    needs!(machine::mounts());
    let (_layers, mount) = mounted();
    read(&mount.join("d/f"));
    assert!(fs::metadata(mount.join("d")).unwrap().is_dir());
    assert_cost(&mount, 4, || create(&mount.join("d/new")));
}

#[test]
fn unlink_costs_three() {
    needs!(machine::mounts());
    let (_layers, mount) = mounted();
    create(&mount.join("d/new"));
    assert_cost(&mount, 3, || fs::remove_file(mount.join("d/new")).unwrap());
}

#[test]
fn rename_costs_three() {
    needs!(machine::mounts());
    let (_layers, mount) = mounted();
    create(&mount.join("d/from"));
    assert_cost(&mount, 3, || fs::rename(mount.join("d/from"), mount.join("d/to")).unwrap());
}

#[test]
fn writes_on_one_descriptor_ask_for_capabilities_once() {
    needs!(machine::mounts());
    let (_layers, mount) = mounted();
    let spent = cost(&mount, || {
        let mut open = File::create(mount.join("d/new")).unwrap();
        (0..5).for_each(|_| open.write_all(b"line").unwrap());
    });
    assert!(spent.count("GETXATTR") <= 1, "{spent:?}");
}

/// With one thread, as above.
fn passing_through(layers: &Layers) -> LaminaMount {
    Lamina::on(layers).option("threaded=0,io=passthrough").mount()
}

/// OPEN, and RELEASE that nobody waits for. The kernel was told before that FLUSH means nothing.
#[test]
fn open_read_close_costs_two_when_passed_through() {
    needs!(machine::passthrough());
    let layers = Layers::new(&[&[dir("d")]]);
    let mount = passing_through(&layers);
    fs::write(mount.join("d/f"), "content").unwrap();
    assert_eq!(read(&mount.join("d/f")), b"content");
    assert_cost(&mount, 2, || {
        let mut open = File::open(mount.join("d/f")).unwrap();
        open.read_exact(&mut [0; 7]).unwrap();
    });
}

/// LOOKUP, CREATE, GETXATTR of security.capability, and RELEASE that nobody waits for.
#[test]
fn create_write_close_costs_four_when_passed_through() {
    needs!(machine::passthrough());
    let layers = Layers::new(&[&[dir("d"), file("d/f", "")]]);
    let mount = passing_through(&layers);
    create(&mount.join("d/first"));
    assert!(fs::metadata(mount.join("d")).unwrap().is_dir());
    assert_cost(&mount, 4, || create(&mount.join("d/new")));
}

#[test]
fn reset_starts_from_zero() {
    needs!(machine::mounts());
    let (_layers, mount) = mounted();
    read(&mount.join("d/f"));
    let counted = Requests::parse(&machine::run(&program(), &["stats", path(&mount), "--format=json", "--reset"]));
    assert!(counted.0["LOOKUP"] >= 2, "{counted:?}");
    let after = Requests::so_far(&mount);
    assert!(!after.0.contains_key("LOOKUP"), "{after:?}");
}

#[test]
fn counters_are_told_to_the_owner_only() {
    needs!(machine::mounts(), machine::program("setpriv"));
    let layers = Layers::new(&[&[file("f", "")]]);
    let mount = Lamina::on(&layers).option("allow_other").mount();
    let refused = |output: &Output, sentence: &str| {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && stderr.contains(sentence), "{output:?}");
    };
    refused(&stats_as(65534, path(&mount)), "was mounted by another user");
    let outside = machine::output(&program(), &["stats", layers.home().to_str().unwrap()]);
    refused(&outside, "is not the root of a mount of lamina-fs");
}

/// With a copy of the binary, as the other user may not reach it where it is built.
fn stats_as(id: u32, mountpoint: &str) -> Output {
    let copy = tempfile::Builder::new().prefix("lamina-stats-").tempdir().unwrap();
    let program = copy.path().join("lamina-fs");
    fs::copy(binary(), &program).unwrap();
    machine::run("chmod", &["-R", "a+rX", copy.path().to_str().unwrap()]);
    machine::shell_as(id, &format!("exec {} stats {mountpoint}", program.display()))
}
