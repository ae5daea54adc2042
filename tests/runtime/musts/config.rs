//! config.md: versions, properties, mounts, and the process.

use crate::bundle::{Bundle, Runtime};
use serde_json::json;
use std::fs;

pub fn an_unknown_major_version_must_be_an_error(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.set("/ociVersion", json!("2.0.0")).create().refuses();
}

pub fn unknown_properties_must_be_ignored(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.set("/notInTheSpecification", json!({"a": [1]})).set("/process/norThis", json!(true)).run().ok();
}

pub fn unsupported_properties_must_be_an_error(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.set("/linux/intelRdt", json!({"closID": "x", "l3CacheSchema": "L3:0=1"})).create().refuses();
}

pub fn annotations_must_not_have_an_empty_key(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.set("/annotations", json!({"": "value"})).create().refuses();
}

pub fn root_path_must_exist(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.set("/root/path", json!("nowhere")).create().refuses();
}

pub fn a_readonly_root_must_be_read_only(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    assert_eq!(bundle.set("/root/readonly", json!(true)).sh("touch /x 2>/dev/null || echo refused"), "refused\n");
}

pub fn mounts_must_be_made_in_their_order(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    for size in ["64k", "128k"] {
        bundle.push(
            "/mounts",
            json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": [format!("size={size}")]}),
        );
    }
    let said = bundle.sh("grep ' /tmp ' /proc/self/mountinfo");
    assert!(said.lines().count() == 2 && said.lines().last().is_some_and(|line| line.contains("size=128k")), "{said}");
}

pub fn mount_options_must_be_applied(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    let options = ["nosuid", "nodev", "noexec", "ro", "noatime", "size=64k"];
    bundle.push("/mounts", json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": options}));
    let said = bundle.sh("grep ' /tmp ' /proc/self/mountinfo");
    assert!(said.contains(" ro,nosuid,nodev,noexec,noatime"), "{said}");
}

pub fn recursive_mount_options_must_reach_all_mounts_below(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle
        .push("/mounts", json!({"destination": "/tmp", "type": "bind", "source": "/sys", "options": ["rbind", "rro"]}));
    let said = bundle.sh("grep ' / /tmp' /proc/self/mountinfo");
    assert!(said.lines().count() > 1 && said.lines().all(|line| line.contains(" ro,")), "{said}");
}

pub fn tmpfs_must_be_filled_with_tmpcopyup(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    fs::create_dir_all(bundle.rootfs().join("data/deep")).expect("a directory");
    fs::write(bundle.rootfs().join("data/deep/file"), "kept").expect("a file");
    bundle
        .push("/mounts", json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}));
    assert_eq!(bundle.sh("cat /data/deep/file; echo new > /data/new"), "kept");
    assert!(!bundle.rootfs().join("data/new").exists());
}

pub fn files_may_be_bound(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    let file = bundle.path().join("file");
    fs::write(&file, "bound").expect("a file");
    bundle.push(
        "/mounts",
        json!({"destination": "/etc/new/file", "type": "bind", "source": file, "options": ["bind", "ro"]}),
    );
    assert_eq!(bundle.sh("cat /etc/new/file; echo > /etc/new/file 2>/dev/null || echo ' refused'"), "bound refused\n");
}

pub fn cwd_must_be_absolute(runtime: &Runtime) {
    Bundle::new(runtime).set("/process/cwd", json!("tmp")).create().refuses();
}

pub fn cwd_and_env_must_be_those_of_the_process(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.set("/process/cwd", json!("/tmp")).push("/process/env", json!("A=b c"));
    assert_eq!(bundle.sh("pwd; echo $A"), "/tmp\nb c\n");
}

pub fn args_must_not_be_empty(runtime: &Runtime) {
    Bundle::new(runtime).set("/process/args", json!([])).create().refuses();
}

pub fn user_groups_and_umask_must_be_set(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 0o77}));
    let said = bundle.sh("id -u; id -g; id -G; umask");
    assert_eq!(said, "1000\n1001\n1001 5 6\n0077\n");
}

pub fn rlimits_must_be_set(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.set(
        "/process/rlimits",
        json!([{"type": "RLIMIT_NOFILE", "soft": 20, "hard": 30}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 4096}]),
    );
    assert_eq!(bundle.sh("ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -Hc"), "20\n30\n0\n8\n");
}

pub fn rlimits_must_not_be_named_twice(runtime: &Runtime) {
    let limit = json!({"type": "RLIMIT_NOFILE", "soft": 100, "hard": 100});
    Bundle::new(runtime).set("/process/rlimits", json!([limit, limit])).create().refuses();
}

pub fn capabilities_must_be_limited_to_their_sets(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    let sets = json!({
        "bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL"],
        "inheritable": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN"],
    });
    bundle.set("/process/capabilities", sets).set("/process/user", json!({"uid": 1000, "gid": 1000}));
    // Over execve a user keeps what is ambient.
    let said = bundle.sh("grep ^Cap /proc/self/status | awk '{print $2}'");
    let expected = ["1", "1", "1", "21", "1"].map(|digits| format!("{digits:0>16}\n")).concat();
    assert_eq!(said, expected);
}

pub fn no_new_privileges_must_be_set(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    assert_eq!(bundle.sh("grep NoNewPrivs /proc/self/status"), "NoNewPrivs:\t1\n");
    assert_eq!(
        bundle.set("/process/noNewPrivileges", json!(false)).sh("grep NoNewPrivs /proc/self/status"),
        "NoNewPrivs:\t0\n"
    );
}

pub fn oom_score_adj_must_be_set(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    assert_eq!(bundle.set("/process/oomScoreAdj", json!(321)).sh("cat /proc/self/oom_score_adj"), "321\n");
}

pub fn hostname_and_domainname_must_be_set(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.set("/domainname", json!("example.org"));
    assert_eq!(bundle.sh("hostname; cat /proc/sys/kernel/domainname"), "tested\nexample.org\n");
}
