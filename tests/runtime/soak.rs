//! Again and again: nothing may be left, and nothing may grow.

use crate::bundle::{Bundle, find_cgroups};
use std::fs;
use support::{machine, needs};

/// What this machine has of things that a container could leave.
fn leftovers(bundle: &Bundle) -> Vec<String> {
    let scratch = bundle.path().to_str().expect("UTF-8");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
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

#[test]
fn nothing_is_left_after_many_lives() {
    needs!(machine::root(), machine::program("busybox"));
    let mut bundle = Bundle::ours();
    let descriptors = |pid: i32| fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").count();
    for _ in 0..machine::number_from_env("LAMINA_SOAK", 100) / 10 {
        bundle.running();
        bundle.exec("true").ok();
        assert_eq!(descriptors(bundle.pid()), 3);
        bundle.verb(&["kill", &bundle.id, "KILL"]).ok();
        bundle.await_end();
        bundle.verb(&["delete", &bundle.id]).ok();
    }
    assert_eq!(leftovers(&bundle), Vec::<String>::new());
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
        bundle.set(place, value).run().fails();
        assert_eq!(leftovers(&bundle), Vec::<String>::new(), "{place}");
    }
}
