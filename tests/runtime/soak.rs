//! Again and again: nothing may be left, and nothing may grow.

use crate::bundle::{Bundle, find_cgroups};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;
use support::growth::{Figures, named_after};
use support::{machine, needs};

/// What this machine has of things that a container could leave.
fn leftovers(bundle: &Bundle) -> Vec<String> {
    let scratch = bundle.path().to_str().expect("UTF-8");
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").expect("mounts");
    let mut found: Vec<String> = mounts.lines().filter(|line| line.contains(scratch)).map(str::to_owned).collect();
    found.extend(find_cgroups(&bundle.id).into_iter().map(|path| path.display().to_string()));
    let state = fs::read_dir(bundle.path().join("state")).into_iter().flatten().flatten();
    found.extend(state.map(|entry| entry.path().display().to_string()));
    for process in fs::read_dir("/proc").expect("/proc").flatten() {
        // A zombie has no command line: it has ended, and waits for its parent.
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.contains(&bundle.id) {
            found.push(line);
        }
    }
    found
}

#[test]
fn nothing_is_left_after_many_runs() {
    needs!(machine::root(), machine::program("busybox"));
    let bundle = Bundle::ours();
    for _ in 0..machine::number_from_env("LAMINA_SOAK", 100) {
        bundle.run().ok();
    }
    assert_eq!(leftovers(&bundle), Vec::<String>::new());
}

/// Nothing of ours stays with a container: what must not grow is what its first process was given.
#[test]
fn nothing_grows_and_nothing_is_left_after_many_lives() {
    needs!(machine::root(), machine::program("busybox"));
    let (mut staying, mut passing) = (Bundle::ours(), Bundle::ours());
    let stays = [("the container", staying.running().pid())];
    let mut life = || {
        passing.running();
        passing.exec("true").ok();
        staying.exec("echo again >/tmp/kept").ok();
        passing.verb(&["kill", &passing.id, "KILL"]).ok();
        passing.await_end();
        passing.verb(&["delete", &passing.id]).ok();
        leftovers(&passing)
    };
    let cycles = machine::number_from_env("LAMINA_SOAK", 100) / 2;
    let figures = |left: Vec<String>| {
        assert_eq!(left, Vec::<String>::new());
        Figures::now(&stays, staying.path(), leftovers(&staying))
    };
    (0..10).for_each(|_| drop(life()));
    let before = figures(life());
    let begun = Instant::now();
    (1..cycles).for_each(|_| drop(life()));
    let last = life();
    println!("{:?} a cycle", begun.elapsed() / u32::try_from(cycles).expect("not that many"));
    figures(last).assert_flat_since(&before, cycles, "lamina-oci");
    assert_eq!(named_after(&BTreeSet::from([passing.id.clone()])), Vec::<PathBuf>::new());
}

#[test]
fn nothing_is_left_after_failures_at_every_step() {
    needs!(machine::root(), machine::program("busybox"));
    use serde_json::json;
    let breaks: [(&str, serde_json::Value); 8] = [
        ("/process/args", json!(["no-such-program"])),
        ("/process/cwd", json!("/bin/busybox")),
        ("/process/rlimits", json!([{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}])),
        ("/hooks/createRuntime", json!([{"path": "/bin/false"}])),
        ("/linux/sysctl", json!({"net.no.such": "1"})),
        ("/linux/readonlyPaths", json!(["/proc/self/exe/x", "\u{0}"])),
        ("/linux/devices", json!([{"path": "/proc/x", "type": "c", "major": 1, "minor": 3}])),
        ("/linux/resources", json!({"memory": {"limit": 1, "swap": -7}})),
    ];
    for (place, value) in breaks {
        let mut bundle = Bundle::ours();
        bundle.set(place, value).run().refuses();
        assert_eq!(leftovers(&bundle), Vec::<String>::new(), "{place}");
    }
}
