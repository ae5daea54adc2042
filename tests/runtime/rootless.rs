//! Containers of a user without privileges: a user namespace with one id, no cgroup, devices of the host.

use crate::bundle::{Bundle, chmod, copy};
use serde_json::json;
use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use support::said::Said;
use support::{machine, needs};

/// A user who need not have a name.
const USER: u32 = 12_345;

fn missing() -> Option<String> {
    machine::root().or_else(|| machine::program("busybox")).or_else(|| machine::program("setpriv"))
}

/// A bundle of that user's own, with one id and the runtime where he may read it.
fn bundle() -> Bundle {
    let mut bundle = Bundle::ours();
    let program = bundle.path().join("lamina-oci");
    copy(&bundle.runtime.program, &program);
    bundle.runtime.program = program;
    let id = USER.to_string();
    bundle.before = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--inh-caps=-all", "--"]
        .map(str::to_owned)
        .to_vec();
    let map = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
    bundle.without_namespace("network").push("/linux/namespaces", json!({"type": "user"}));
    bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    give(bundle.path());
    bundle
}

fn give(path: &Path) {
    std::os::unix::fs::lchown(path, Some(USER), Some(USER)).expect("chown");
    if path.is_dir() && !path.is_symlink() {
        fs::read_dir(path).expect("a directory").flatten().for_each(|entry| give(&entry.path()));
    }
}

fn run(bundle: &mut Bundle, script: &str) -> Said {
    bundle.script(script);
    bundle.write();
    chmod(&bundle.path().join("config.json"), 0o644);
    let said = bundle.run();
    chown(bundle.path(), Some(USER), Some(USER)).expect("chown");
    said
}

#[test]
fn one_id_is_enough() {
    needs!(missing());
    let mut bundle = bundle();
    let said = run(
        &mut bundle,
        "id -u; cat /proc/self/setgroups; cat /proc/self/uid_map; echo > /dev/null && echo null; touch /made",
    )
    .ok();
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(words, ["0", "deny", "0", "12345", "1", "null"]);
    use std::os::unix::fs::MetadataExt;
    assert_eq!(fs::metadata(bundle.rootfs().join("made")).expect("a file").uid(), USER);
}

#[test]
fn no_cgroup_is_needed_without_limits_and_missed_with_one() {
    needs!(missing());
    let mut bundle = bundle();
    run(&mut bundle, "true").ok();
    bundle.set("/linux/resources", json!({"pids": {"limit": 10}}));
    let said = run(&mut bundle, "true").refuses();
    assert!(said.contains("pids.max"), "{said}");
}

#[test]
fn a_running_container_is_entered_listed_and_killed() {
    needs!(missing());
    let mut bundle = bundle();
    bundle.running();
    assert_eq!(bundle.exec("id -u; hostname").ok(), "0\ntested\n");
    assert_eq!(bundle.verb(&["list", "--quiet"]).ok(), format!("{}\n", bundle.id));
    bundle.verb(&["kill", &bundle.id, "KILL"]).ok();
    bundle.await_end();
    bundle.verb(&["delete", &bundle.id]).ok();
}

#[test]
fn the_program_is_sealed_in_memory() {
    needs!(missing());
    let bundle = bundle();
    bundle.create().ok();
    let program = fs::read_link(format!("/proc/{}/exe", bundle.pid())).expect("the program");
    assert!(program.to_string_lossy().starts_with("/memfd:"), "{}", program.display());
    let opened = fs::OpenOptions::new().write(true).open(format!("/proc/{}/exe", bundle.pid()));
    assert!(opened.is_err());
}

#[test]
fn an_id_that_is_not_given_is_an_error_that_names_it() {
    needs!(missing(), machine::program("newuidmap"));
    let mut bundle = bundle();
    bundle.set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 7_000_000, "size": 10}]));
    let said = run(&mut bundle, "true").refuses();
    assert!(said.contains("newuidmap") && said.contains("subuid"), "{said}");
}

#[test]
fn the_root_of_a_user_namespace_runs_containers_too() {
    needs!(missing(), machine::program("unshare"));
    let mut bundle = bundle();
    bundle.before.extend(["unshare", "-Urm"].map(str::to_owned));
    let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    assert_eq!(run(&mut bundle, "id -u; echo $$").ok(), "0\n1\n");
}

/// Gives the user a name and a range of ids, in a mount namespace of the command's own, then steps down. `$0` is the scratch directory.
const WITH_RANGE: &str = "mount --bind $0/passwd /etc/passwd
    mount --bind $0/range /etc/subuid; mount --bind $0/range /etc/subgid
    exec setpriv --reuid 12345 --regid 12345 --clear-groups --inh-caps=-all -- \"$@\"";

#[test]
fn a_range_of_ids_is_mapped_by_newuidmap() {
    needs!(missing(), machine::program("newuidmap"), machine::program("unshare"));
    let mut bundle = bundle();
    fs::write(bundle.path().join("passwd"), "root:x:0:0::/root:/bin/sh\nsomebody:x:12345:12345::/:/bin/sh\n")
        .expect("passwd");
    fs::write(bundle.path().join("range"), "somebody:300000:65536\n").expect("a range");
    for name in ["/etc/subuid", "/etc/subgid"] {
        needs!((!Path::new(name).exists()).then(|| format!("this machine has no {name}")));
    }
    let scratch = bundle.path().to_str().expect("UTF-8").to_owned();
    bundle.before = ["unshare", "-m", "sh", "-euc", WITH_RANGE, &scratch].map(str::to_owned).to_vec();
    let own = json!({"containerID": 0, "hostID": USER, "size": 1});
    let map = json!([own, {"containerID": 1, "hostID": 300_000, "size": 65_536}]);
    bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000, "additionalGids": [5]}));
    chmod(&bundle.rootfs().join("tmp"), 0o1777);
    let said = run(&mut bundle, "id -u; id -G; cat /proc/self/setgroups; touch /tmp/made").ok();
    assert_eq!(said, "1000\n1000 5\nallow\n");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(fs::metadata(bundle.rootfs().join("tmp/made")).expect("a file").uid(), 300_999);
}
