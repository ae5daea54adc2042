//! The command line that callers expect, beyond the specification: words, codes, files.

use crate::bundle::{Bundle, forget_cgroup, lamina_oci};
use crate::terminal::receive;
use serde_json::{Value, json};
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use support::{machine, needs};

fn missing() -> Option<String> {
    machine::root().or_else(|| machine::program("busybox"))
}

#[test]
fn run_answers_the_code_of_the_process() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    assert_eq!(bundle.script("exit 7").run().code, Some(7));
    assert_eq!(bundle.script("exec 2>/dev/null; sh -c 'kill -9 $$'; exit $?").run().code, Some(137));
    bundle.set("/process/args", json!(["no-such-program"]));
    let said = bundle.run();
    assert_eq!(said.code, Some(255));
    assert!(said.err.contains("executable file not found in $PATH"), "{}", said.err);
}

/// What a script starts in the background ignores two signals, and nohup(1) a third; a container must not.
#[test]
fn a_container_ignores_no_signal_that_its_caller_ignores() {
    needs!(missing());
    let mut bundle = Bundle::new(&lamina_oci());
    bundle.before = ["sh", "-c", "trap '' HUP INT QUIT TERM USR1; exec \"$@\"", "sh"].map(str::to_owned).to_vec();
    let ignored = |text: String| {
        let word = text.split_whitespace().nth(1).expect("SigIgn: a mask").to_owned();
        u64::from_str_radix(&word, 16).expect("a mask")
    };
    // Signals 32 and 33 are libc's own: no program can set them by signal(2).
    let own = 0b11 << 31;
    // Not by a shell, which ignores signals of its own accord.
    let words = ["grep", "SigIgn", "/proc/self/status"];
    assert_eq!(ignored(bundle.set("/process/args", json!(words)).run().ok()) & !own, 0);
    bundle.running();
    assert_eq!(ignored(bundle.verb(&[&["exec", &bundle.id], &words[..]].concat()).ok()) & !own, 0);
}

#[test]
fn flags_may_stand_behind_the_id() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    bundle.set("/process/args", json!(["sleep", "100000"])).write();
    let (path, pid_file) = (bundle.path().to_owned(), bundle.path().join("pid"));
    let words = [
        "create",
        &bundle.id,
        "--bundle",
        path.to_str().expect("UTF-8"),
        "--pid-file",
        pid_file.to_str().expect("UTF-8"),
    ];
    bundle.verb(&words).ok();
    assert_eq!(fs::read_to_string(pid_file).expect("the pid file"), bundle.pid().to_string());
    bundle.start().ok();
    bundle.verb(&["kill", &bundle.id, "SIGKILL", "--all"]).ok();
    bundle.await_end();
    assert_eq!(bundle.status(), "stopped");
}

/// As go-runc and containerd ask for it: a descriptor cannot come to mean another process, as a number can.
#[test]
fn the_pidfd_socket_receives_the_process() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    let path = bundle.path().join("socket");
    let socket = path.to_str().expect("UTF-8").to_owned();
    let listener = UnixListener::bind(&path).expect("a socket");
    bundle.set("/process/args", json!(["sleep", "100000"])).write();
    bundle.verb(&["create", "--pidfd-socket", &socket, &bundle.id]).ok();
    let (name, init) = receive(&listener);
    assert_eq!((name.as_slice(), process_of(&init)), (&b"standard"[..], bundle.pid()));
    bundle.start().ok();

    let pid_file = bundle.path().join("pid");
    let words = ["exec", "--detach", "--pid-file", pid_file.to_str().expect("UTF-8"), "--pidfd-socket", &socket];
    bundle.verb(&[&words[..], &[&bundle.id, "sleep", "100000"]].concat()).ok();
    let (name, joined) = receive(&listener);
    let noted = fs::read_to_string(pid_file).expect("the pid file");
    assert_eq!((name.as_slice(), process_of(&joined).to_string()), (&b"setns"[..], noted));

    rustix::process::pidfd_send_signal(&init, rustix::process::Signal::KILL).expect("the container is killed");
    bundle.await_end();
    let unmade = Bundle::ours();
    unmade.write();
    assert!(unmade.verb(&["create", "--pidfd-socket", "/nowhere", &unmade.id]).refuses().contains("/nowhere"));
    assert!(unmade.verb(&["state", &unmade.id]).refuses().contains("does not exist"));
}

/// The number of the process that a descriptor stands for; see pidfd_open(2).
fn process_of(descriptor: &OwnedFd) -> i32 {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", descriptor.as_raw_fd())).expect("fdinfo");
    let line = text.lines().find_map(|line| line.strip_prefix("Pid:")).expect("a pidfd");
    line.trim().parse().expect("a number")
}

#[test]
fn errors_are_log_lines_of_json_for_callers_that_ask() {
    needs!(missing());
    let bundle = Bundle::ours();
    let log = bundle.path().join("log.json");
    let words = ["--log", log.to_str().expect("UTF-8"), "--log-format", "json", "state", "no-such"];
    bundle.verb(&words).refuses();
    let text = fs::read_to_string(log).expect("the log");
    let line: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().is_some_and(|message| message.contains("container does not exist")));
    assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z')));
}

#[test]
fn delete_with_force_is_content_with_a_container_that_is_gone() {
    needs!(missing());
    Bundle::ours().verb(&["delete", "--force", "no-such"]).ok();
}

#[test]
fn ids_cannot_lead_out_of_the_state_directory() {
    needs!(missing());
    let bundle = Bundle::ours();
    for id in ["..", "a/b", "", "."] {
        bundle.verb(&["delete", "--force", id]).refuses();
    }
}

#[test]
fn version_names_the_program_and_the_specification() {
    let said = Bundle::ours().verb(&["--version"]).ok();
    assert!(said.starts_with("lamina-oci ") && said.contains("\nspec: 1."), "{said}");
}

#[test]
fn features_is_a_document() {
    let features: Value = serde_json::from_str(&Bundle::ours().verb(&["features"]).ok()).expect("JSON");
    assert_eq!(features["linux"]["namespaces"].as_array().map(Vec::len), Some(8));
    assert_eq!(features["linux"]["capabilities"].as_array().map(Vec::len), Some(41));
    assert!(features["mountOptions"].as_array().is_some_and(|options| options.contains(&json!("rro"))));
}

#[test]
fn spec_writes_what_run_takes_and_never_overwrites() {
    needs!(missing());
    let bundle = Bundle::ours();
    bundle.verb(&["spec"]).ok();
    let mut config: Value =
        serde_json::from_slice(&fs::read(bundle.path().join("config.json")).expect("config.json")).expect("JSON");
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["hostname"]);
    assert!(bundle.verb(&["spec"]).refuses().contains("exists"));
    fs::write(bundle.path().join("config.json"), config.to_string()).expect("config.json");
    assert_eq!(bundle.verb(&["run", &bundle.id]).ok(), "lamina\n");
}

#[test]
fn exec_runs_in_all_namespaces_and_cgroups_of_the_container() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    bundle.push("/linux/namespaces", json!({"type": "cgroup"})).running();
    let list = "for name in pid ipc uts mnt net cgroup; do readlink /proc/self/ns/$name; done; hostname; cat /proc/self/cgroup";
    let inside = bundle.exec(list).ok();
    for kind in ["pid", "ipc", "uts", "mnt", "net", "cgroup"] {
        let namespace = fs::read_link(format!("/proc/{}/ns/{kind}", bundle.pid())).expect("a namespace");
        assert!(inside.contains(namespace.to_str().expect("UTF-8")), "{inside}");
    }
    assert!(inside.contains("tested\n") && inside.contains("pids:/\n"), "{inside}");
}

#[test]
fn exec_answers_its_own_code_and_takes_flags() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    bundle.running();
    assert_eq!(bundle.exec("exit 9").code, Some(9));
    let words = ["exec", "--user", "1000:1001", "--cwd", "/tmp", "--env", "A=b", "--cap", "CAP_CHOWN", &bundle.id];
    let script = ["sh", "-c", "id -u; id -g; pwd; echo $A $HOME; grep CapBnd /proc/self/status"];
    let said = bundle.verb(&[&words[..], &script[..]].concat()).ok();
    assert_eq!(said, "1000\n1001\n/tmp\nb /home/user\nCapBnd:\t0000000020000421\n");
    let said = bundle.verb(&["exec", &bundle.id, "no-such-program"]);
    assert_eq!(said.code, Some(255));
    assert!(said.err.contains("executable file not found in $PATH"), "{}", said.err);
}

#[test]
fn exec_takes_a_process_and_leaves_it_behind() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    bundle.running();
    let process = json!({"args": ["sh", "-c", "echo $$ > /tmp/number; exec sleep 100000"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"]});
    let (file, pid_file) = (bundle.path().join("process.json"), bundle.path().join("pid"));
    fs::write(&file, process.to_string()).expect("process.json");
    let words = [
        "--process",
        file.to_str().expect("UTF-8"),
        "--detach",
        "--pid-file",
        pid_file.to_str().expect("UTF-8"),
        &bundle.id,
    ];
    bundle.verb(&[&["exec"], &words[..]].concat()).ok();
    let pid = fs::read_to_string(pid_file).expect("the pid file");
    let listed: Vec<i32> =
        serde_json::from_str(&bundle.verb(&["ps", "--format", "json", &bundle.id]).ok()).expect("JSON");
    assert!(listed.contains(&pid.parse().expect("a number")) && listed.contains(&bundle.pid()), "{listed:?}");
}

#[test]
fn exec_wants_a_running_container() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    bundle.running();
    bundle.verb(&["kill", &bundle.id, "KILL"]).ok();
    bundle.await_end();
    assert!(bundle.exec("true").refuses().contains("container not running"));
}

#[test]
fn pause_freezes_and_resume_thaws() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    bundle.running();
    bundle.verb(&["pause", &bundle.id]).ok();
    assert_eq!(bundle.status(), "paused");
    assert!(bundle.exec("true").refuses().contains("paused"));
    bundle.verb(&["resume", &bundle.id]).ok();
    bundle.exec("true").ok();
    bundle.verb(&["resume", &bundle.id]).refuses();
    // A paused container can be deleted all the same.
    bundle.verb(&["pause", &bundle.id]).ok();
    bundle.verb(&["delete", "--force", &bundle.id]).ok();
}

#[test]
fn update_changes_limits_by_flag_file_and_standard_input() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    bundle.running();
    let limit = || {
        let dir =
            bundle.cgroup_dirs().into_iter().find(|dir| dir.starts_with("/sys/fs/cgroup/pids")).expect("a pids cgroup");
        fs::read_to_string(dir.join("pids.max")).expect("pids.max").trim().to_owned()
    };
    bundle.verb(&["update", "--pids-limit", "11", &bundle.id]).ok();
    assert_eq!(limit(), "11");
    let file = bundle.path().join("limits");
    fs::write(&file, r#"{"pids":{"limit":12}}"#).expect("a file");
    bundle.verb(&["update", "--resources", file.to_str().expect("UTF-8"), &bundle.id]).ok();
    assert_eq!(limit(), "12");
    fs::write(&file, r#"{"pids":{"limit":13}}"#).expect("a file");
    let mut command = bundle.command(&["update", "--resources=-", &bundle.id]);
    assert!(command.stdin(fs::File::open(&file).expect("a file")).status().expect("update").success());
    assert_eq!(limit(), "13");
}

#[test]
fn events_and_list_print_what_readers_parse() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    bundle.running();
    let stats: Value = serde_json::from_str(&bundle.verb(&["events", "--stats", &bundle.id]).ok()).expect("JSON");
    assert_eq!((stats["type"].as_str(), stats["data"]["pids"]["current"].as_u64()), (Some("stats"), Some(1)));
    assert!(stats["data"]["memory"]["usage"]["usage"].as_u64().is_some_and(|bytes| bytes > 0), "{stats}");
    let list: Value = serde_json::from_str(&bundle.verb(&["list", "--format", "json"]).ok()).expect("JSON");
    assert_eq!((list[0]["id"].as_str(), list[0]["status"].as_str()), (Some(bundle.id.as_str()), Some("running")));
    assert_eq!(bundle.verb(&["list", "--quiet"]).ok(), format!("{}\n", bundle.id));
}

#[test]
fn a_limit_without_a_controller_is_an_error_and_leaves_nothing() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    let said = bundle.set("/linux/resources", json!({"unified": {"no-such.max": "1"}})).create().refuses();
    assert!(said.contains("no-such.max"), "{said}");
    assert_eq!(bundle.cgroup_dirs(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_cgroup_with_somebody_in_it_is_refused() {
    needs!(missing());
    let mut first = Bundle::ours();
    let path = format!("/{}-group", first.id);
    first.set("/linux/cgroupsPath", json!(path)).running();
    let mut second = Bundle::ours();
    assert!(second.set("/linux/cgroupsPath", json!(path)).create().refuses().contains("not empty"));
    assert_eq!(first.status(), "running");
}

#[test]
fn systemd_names_become_directories() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    bundle.set("/linux/cgroupsPath", json!(format!("machine-laminatest.slice:libpod:{}", bundle.id)));
    bundle.set("/process/args", json!(["sleep", "100000"])).write();
    bundle.verb(&["--systemd-cgroup", "create", &bundle.id]).ok();
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", bundle.pid())).expect("cgroups of init");
    let expected = format!("pids:/machine.slice/machine-laminatest.slice/libpod-{}.scope", bundle.id);
    assert!(groups.lines().any(|line| line.ends_with(&expected)), "{groups}");
    bundle.verb(&["delete", "--force", &bundle.id]).ok();
    forget_cgroup("machine.slice/machine-laminatest.slice");
}

#[test]
fn denied_devices_cannot_be_opened() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    bundle.push("/linux/devices", json!({"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}));
    bundle.set("/linux/resources", json!({"devices": [{"allow": false, "access": "rwm"}]}));
    assert_eq!(bundle.sh("head -c1 /dev/zero | wc -c; cat /dev/kmsg 2>/dev/null || echo refused"), "1\nrefused\n");
}

#[test]
fn cgroup_mounts_show_the_containers_own() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    bundle.push("/linux/namespaces", json!({"type": "cgroup"}));
    bundle.push(
        "/mounts",
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid"]}),
    );
    let said =
        bundle.sh("cat /sys/fs/cgroup/pids/cgroup.procs; mkdir /sys/fs/cgroup/pids/x 2>/dev/null || echo refused");
    assert!(said.starts_with("1\n") && said.ends_with("refused\n"), "{said}");
}

#[test]
fn idmapped_mounts_show_other_owners() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    let source = bundle.path().join("owned");
    fs::create_dir(&source).expect("a directory");
    fs::write(source.join("file"), "").expect("a file");
    let map = json!([{"containerID": 0, "hostID": 5000, "size": 100}]);
    let mount = json!({"destination": "/tmp", "type": "bind", "source": source, "options": ["bind"], "uidMappings": map, "gidMappings": map});
    let said = bundle.push("/mounts", mount).sh("stat -c %u:%g /tmp/file");
    assert_eq!(said, "5000:5000\n");
}

#[test]
fn kill_all_reaches_processes_that_left_the_process_namespace_to_others() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    // Without a process namespace the end of init ends nobody else.
    bundle.without_namespace("pid").script("sleep 100000 & exec sleep 100000").create().ok();
    bundle.start().ok();
    let listed = || -> Vec<i32> {
        serde_json::from_str(&bundle.verb(&["ps", "--format", "json", &bundle.id]).ok()).expect("JSON")
    };
    let mut processes = listed();
    while processes.len() < 2 {
        assert_eq!(bundle.status(), "running");
        processes = listed();
    }
    bundle.verb(&["kill", "--all", &bundle.id, "9"]).ok();
    for pid in processes.into_iter().filter_map(rustix::process::Pid::from_raw) {
        crate::bundle::await_process(pid);
    }
    bundle.verb(&["delete", &bundle.id]).ok();
}

#[test]
fn init_is_an_orphan_of_the_callers_reaper() {
    needs!(missing());
    let bundle = Bundle::ours();
    bundle.write();
    // This test's thread group becomes the reaper of its own descendants, as a shim is.
    nix::sys::prctl::set_child_subreaper(true).expect("become a reaper");
    bundle.create().ok();
    let stat = fs::read_to_string(format!("/proc/{}/stat", bundle.pid())).expect("stat of init");
    let parent = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(1))
        .and_then(|word| word.parse::<u32>().ok());
    let init = rustix::process::Pid::from_raw(bundle.pid()).expect("init");
    bundle.verb(&["delete", "--force", &bundle.id]).ok();
    nix::sys::prctl::set_child_subreaper(false).expect("be none any more");
    assert_eq!(parent, Some(std::process::id()));
    rustix::process::waitpid(Some(init), rustix::process::WaitOptions::empty()).expect("it is ours to reap");
}

#[test]
fn every_unsupported_property_is_named() {
    needs!(missing());
    let cases = [
        ("/linux/netDevices", json!({"eth0": {}}), "linux.netDevices"),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_DEFAULT"}), "linux.memoryPolicy"),
        ("/process/execCPUAffinity", json!({"initial": "0"}), "process.execCPUAffinity"),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}),
            "linux.seccomp.listenerPath",
        ),
    ];
    for (place, value, name) in cases {
        let mut bundle = Bundle::new(&lamina_oci());
        let said = bundle.set(place, value).create().refuses();
        assert!(said.contains(name) && said.contains("not supported"), "{said}");
    }
}

#[test]
fn sysctls_of_the_host_are_refused() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    let said = bundle.set("/linux/sysctl", json!({"vm.overcommit_memory": "1"})).create().refuses();
    assert!(said.contains("would change the host"), "{said}");
    let said = bundle
        .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}))
        .without_namespace("network")
        .create()
        .refuses();
    assert!(said.contains("would change the host"), "{said}");
}

/// It moves itself there, or is born there, before it does anything else: nothing of it, and nothing that it starts, may be elsewhere.
#[test]
fn a_process_is_in_every_hierarchy_from_the_beginning() {
    needs!(machine::root(), machine::program("busybox"));
    let mut bundle = Bundle::ours();
    let path = format!("/{}", bundle.id);
    bundle.without_namespace("cgroup").set("/linux/cgroupsPath", json!(path));
    let elsewhere = |said: &str| {
        assert!(said.lines().count() > 0, "{said}");
        // A controller that is mounted nowhere is listed at the root of its hierarchy, with everybody else in it.
        let mounted = |line: &&str| {
            let name = line.split(':').nth(1).unwrap();
            let host = fs::read_to_string("/proc/self/mountinfo").unwrap();
            host.lines().any(|mount| match name {
                "" => mount.contains(" - cgroup2 "),
                name => mount.contains(" - cgroup ") && mount.split([',', ' ']).any(|word| word == name),
            })
        };
        said.lines().filter(mounted).filter(|line| !line.ends_with(&path)).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(elsewhere(&bundle.sh("cat /proc/self/cgroup")), Vec::<String>::new());
    let shifted = json!({"boottime": {"secs": 100, "nanosecs": 0}});
    bundle.push("/linux/namespaces", json!({"type": "time"})).set("/linux/timeOffsets", shifted);
    assert_eq!(elsewhere(&bundle.sh("cat /proc/self/cgroup")), Vec::<String>::new(), "by way of a process in between");
    assert_eq!(elsewhere(&bundle.running().exec("cat /proc/self/cgroup").ok()), Vec::<String>::new());
}
