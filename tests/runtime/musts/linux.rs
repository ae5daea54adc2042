//! config-linux.md: namespaces, devices, cgroups, and what hides and limits.

use crate::bundle::{Bundle, Runtime};
use serde_json::json;
use std::fs;

/// The namespaces of a container's process, as `ls -l /proc/self/ns` names them.
pub fn namespace(pid: i32, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace").to_string_lossy().into_owned()
}

fn own() -> i32 {
    std::process::id() as i32
}

pub fn namespaces_must_be_new_without_a_path(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.push("/linux/namespaces", json!({"type": "cgroup"})).running();
    for kind in ["pid", "ipc", "uts", "mnt", "net", "cgroup"] {
        assert_ne!(namespace(bundle.pid(), kind), namespace(own(), kind));
    }
}

pub fn namespaces_must_be_joined_with_a_path(runtime: &Runtime) {
    let mut first = Bundle::new(runtime);
    first.running();
    let mut second = Bundle::new(runtime);
    for (kind, file) in [("pid", "pid"), ("ipc", "ipc"), ("uts", "uts"), ("network", "net")] {
        second.without_namespace(kind);
        second.push("/linux/namespaces", json!({"type": kind, "path": format!("/proc/{}/ns/{file}", first.pid())}));
    }
    second.running();
    for kind in ["pid", "ipc", "uts", "net"] {
        assert_eq!(namespace(second.pid(), kind), namespace(first.pid(), kind));
    }
    assert_ne!(namespace(second.pid(), "mnt"), namespace(first.pid(), "mnt"));
}

pub fn namespaces_must_be_the_runtimes_if_not_named(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.without_namespace("network").without_namespace("ipc").running();
    for kind in ["net", "ipc"] {
        assert_eq!(namespace(bundle.pid(), kind), namespace(own(), kind));
    }
}

pub fn a_namespace_path_of_another_type_must_be_an_error(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle
        .without_namespace("network")
        .push("/linux/namespaces", json!({"type": "network", "path": "/proc/self/ns/ipc"}));
    bundle.create().refuses();
}

pub fn namespaces_must_not_be_named_twice(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.push("/linux/namespaces", json!({"type": "pid"})).create().refuses();
}

pub fn uid_mappings_must_be_applied(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
    bundle.push("/linux/namespaces", json!({"type": "user"}));
    bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    let said = bundle.sh("cat /proc/self/uid_map /proc/self/gid_map; id -u; test -c /dev/null && echo null");
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(words, ["0", "100000", "1000", "0", "100000", "1000", "0", "null"]);
}

pub fn time_offsets_must_be_applied(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.push("/linux/namespaces", json!({"type": "time"}));
    bundle.set("/linux/timeOffsets", json!({"boottime": {"secs": 10_000_000, "nanosecs": 0}}));
    let said = bundle.sh("cut -d. -f1 /proc/uptime");
    assert!(said.trim().parse::<u64>().is_ok_and(|seconds| seconds >= 10_000_000), "{said}");
}

pub fn default_devices_must_be_there(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    let said = bundle.sh("for name in null zero full random urandom tty; do stat -c '%F %t:%T %a' /dev/$name; done");
    let numbers = ["1:3", "1:5", "1:7", "1:8", "1:9", "5:0"];
    let expected: String = numbers.iter().map(|number| format!("character special file {number} 666\n")).collect();
    assert_eq!(said, expected);
}

pub fn devices_must_be_made(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.push("/linux/devices", json!({"path": "/dev/deep/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 6}));
    bundle.push("/linux/devices", json!({"path": "/dev/pipe", "type": "p", "fileMode": 0o600, "uid": 0, "gid": 0}));
    let said = bundle.sh("stat -c '%F %t:%T %a %u:%g' /dev/deep/fuse; stat -c '%F %a' /dev/pipe");
    assert_eq!(said, "character special file a:e5 640 5:6\nfifo 600\n");
}

pub fn dev_links_must_be_there(runtime: &Runtime) {
    let said = Bundle::new(runtime).sh("cd /dev; for name in fd stdin stdout stderr ptmx; do readlink $name; done");
    let expected = "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n";
    assert_eq!(said.replace("/dev/pts/ptmx", "pts/ptmx"), expected);
}

pub fn cgroups_path_must_be_the_place(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    let path = format!("/{}-group", bundle.id);
    bundle.set("/linux/cgroupsPath", json!(path)).running();
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", bundle.pid())).expect("cgroups of init");
    assert!(groups.lines().any(|line| line.ends_with(&format!("pids:{path}"))), "{groups}");
}

pub fn limits_must_be_set(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    let limits = json!({"memory": {"limit": 33_554_432}, "pids": {"limit": 50}, "cpu": {"shares": 512, "quota": 20_000, "period": 50_000}});
    let path = format!("/{}-group", bundle.id);
    bundle.set("/linux/resources", limits).set("/linux/cgroupsPath", json!(path)).running();
    let read = |file: &str| {
        let (controller, _) = file.split_once('.').expect("CONTROLLER.FILE");
        fs::read_to_string(format!("/sys/fs/cgroup/{controller}{path}/{file}")).expect(file).trim().to_owned()
    };
    let found = ["memory.limit_in_bytes", "pids.max", "cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us"].map(read);
    assert_eq!(found, ["33554432", "50", "512", "20000", "50000"]);
}

pub fn sysctl_must_be_set(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "4242"}));
    assert_eq!(bundle.sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax"), "1\n4242\n");
}

pub fn masked_paths_must_not_be_read(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    fs::create_dir(bundle.rootfs().join("secret")).expect("a directory");
    fs::write(bundle.rootfs().join("secret/file"), "secret").expect("a file");
    fs::write(bundle.rootfs().join("key"), "secret").expect("a file");
    bundle.set("/linux/maskedPaths", json!(["/secret", "/key", "/not/there"]));
    assert_eq!(bundle.sh("ls -A /secret; cat /key; touch /secret/x 2>/dev/null || echo refused"), "refused\n");
}

pub fn readonly_paths_must_not_be_written(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.set("/linux/readonlyPaths", json!(["/etc", "/not/there"]));
    assert_eq!(bundle.sh("touch /etc/x 2>/dev/null || echo refused; touch /tmp/x && echo made"), "refused\nmade\n");
}

pub fn seccomp_must_be_applied(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}),
    );
    assert!(bundle.sh("mkdir /tmp/x 2>&1 || true").contains("No space left"));
}

pub fn rootfs_propagation_must_be_applied(runtime: &Runtime) {
    for (word, mark) in [("slave", "master:"), ("shared", "shared:"), ("private", "")] {
        let mut bundle = Bundle::new(runtime);
        let said =
            bundle.set("/linux/rootfsPropagation", json!(word)).sh("grep ' / / \\| / ' /proc/self/mountinfo | head -1");
        match mark {
            "" => assert!(!said.contains("shared:") && !said.contains("master:"), "{word}: {said}"),
            // A root that was not shared on the host has nobody to be a slave of.
            "master:" => assert!(!said.contains("shared:"), "{word}: {said}"),
            mark => assert!(said.contains(mark), "{word}: {said}"),
        }
    }
}

pub fn personality_must_be_set(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.set("/linux/personality", json!({"domain": "LINUX32"})).running();
    let persona = fs::read_to_string(format!("/proc/{}/personality", bundle.pid())).expect("personality");
    assert_eq!(persona.trim(), "00000008");
}
