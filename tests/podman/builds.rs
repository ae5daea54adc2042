//! A build of five steps on a real Debian, run, changed, committed, saved, and loaded elsewhere: by root and by a user, with our runtime and with
//! one of Debian's.

use std::path::Path;

use support::{Tree, View, essential, machine, needs, skip};

use crate::host::{Host, LAMINA_FS, Who};
use crate::image::{self, CHECK};
use crate::podman::Podman;

/// What podman itself loses: it compares the trees before and after a step, and a lower file that gets one more name looks the same.
const VIEW: View = View { identity: false, nlinks: false, ..View::TIMELESS };

/// One layer a step.
const BY_LAYERS: &[&str] = &["podman", "build", "--layers=true"];

fn missing() -> Option<String> {
    Host::missing().or_else(essential::missing).or_else(|| machine::program("dpkg-deb"))
}

/// Its content is right, the container runs on one FUSE mount of ours, and podman mounted no overlay of the kernel's.
fn check_running(podman: &Podman) {
    podman.run(0, &["--detach", "--name", "one", "app", "sleep", "100000"]);
    podman.podman(&["exec", "one", "sh", "-c", CHECK]);
    let mounts = podman.mounts_inside("one");
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).expect("a root");
    assert!(root.contains(" - fuse.lamina-fs "), "{root}");
    assert!(!mounts.contains(" - overlay "), "{mounts}");
}

fn nothing_is_left(podmans: &[&Podman], host: &Host) {
    for podman in podmans {
        assert_eq!(podman.mounts_left(), Vec::<String>::new());
        podman.end();
    }
    host.wait_for_all_to_end();
}

fn buildah_builds_the_same(podman: &Podman, context: &Path, app: &Tree) {
    let said = podman.build(&["buildah", "bud", "--isolation", "oci"], "again", context);
    assert!(said.contains("\nperl\n") && said.contains("\ntool\n"), "{said}");
    app.assert_same(&podman.exported("again"), VIEW);
}

/// What the runtime answers through podman to a user, who has no cgroup.
fn user_lives(podman: &Podman) {
    podman.run(9, &["--rm", "app", "sh", "-c", "exit 9"]);
    podman.run(127, &["--rm", "app", "no-such-program"]);
    let script = "trap 'exit 3' TERM; echo logged; echo >/tmp/ready; sleep 100000 & wait";
    podman.run(0, &["--detach", "--name", "two", "app", "sh", "-c", script]);
    // Before its trap is set, the first process of a pid namespace ignores the signal.
    podman.answers(7, &["exec", "two", "sh", "-c", "until [ -e /tmp/ready ]; do :; done; exit 7"]);
    assert_eq!(podman.podman(&["exec", "--user", "33:33", "two", "id", "-u"]), "33");
    podman.podman(&["stop", "two"]);
    assert_eq!(podman.podman(&["logs", "two"]), "logged");
    assert_eq!(podman.podman(&["inspect", "--format", "{{.State.ExitCode}}", "two"]), "3");
    podman.podman(&["start", "two"]);
    podman.podman(&["kill", "two"]);
    assert_eq!(podman.podman(&["wait", "two"]), "137");
    podman.podman(&["rm", "two"]);
    // The owners of the layers go through a mapping that podman gives to the mount.
    let script = "id -u; stat -c %u:%g /etc/passwd /usr/bin/cat; touch /tmp/own; stat -c %u /tmp/own";
    let said = podman.run(0, &["--rm", "--userns", "keep-id", "app", "sh", "-c", script]);
    assert_eq!(said, "12345\n33:33\n0:0\n12345");
}

fn lamina_oci_all_day(who: Who) {
    let Some(base) = essential::debian() else { skip!("no Debian packages can be fetched here") };
    let host = Host::new();
    let context = image::context(host.path());
    let podman = Podman::new(&host, who, "one", Some(LAMINA_FS));
    podman.import(&base, "localhost/base");
    let said = podman.build(BY_LAYERS, "app", &context);
    assert!(said.contains("\nperl\n") && said.contains("\ntool\n"), "{said}");
    check_running(&podman);
    let app = podman.exported("app");
    buildah_builds_the_same(&podman, &context, &app);

    podman.podman(&["exec", "one", "sh", "-c", "echo own >/own; rm -r /srv/app; mkdir /srv/app"]);
    podman.podman(&["commit", "--quiet", "one", "changed"]);
    let changes = podman.podman(&["diff", "one"]);
    for change in ["A /own", "C /srv/app", "D /srv/app/one"] {
        assert!(changes.lines().any(|line| line == change), "{change} is not in:\n{changes}");
    }
    podman.podman(&["rm", "--force", "--time", "0", "one"]);
    assert_eq!(podman.run(0, &["--rm", "changed", "sh", "-c", "cat /own; ls /srv/app"]), "own");

    if who == Who::User {
        user_lives(&podman);
    }

    let archive = podman.path("changed.tar");
    podman.podman(&["save", "--quiet", "--output", &archive, "changed"]);
    let other = Podman::new(&host, who, "other", Some(LAMINA_FS));
    other.podman(&["load", "--quiet", "--input", &archive]);
    other.exported("changed").assert_same(&podman.exported("changed"), View::ALL);

    // The kernel's overlayfs, or what podman takes in its place.
    let native = Podman::new(&host, who, "native", None);
    native.import(&base, "localhost/base");
    native.build(BY_LAYERS, "app", &context);
    app.assert_same(&native.exported("app"), VIEW);
    nothing_is_left(&[&podman, &other, &native], &host);
}

fn debians_runtime(who: Who) {
    let Some(base) = essential::debian() else { skip!("no Debian packages can be fetched here") };
    let host = Host::new();
    let context = image::context(host.path());
    let mut podman = Podman::new(&host, who, "one", Some(LAMINA_FS));
    podman.import(&base, "localhost/base");
    let found = ["crun", "runc"].into_iter().find(|runtime| podman.makes_containers_with(runtime, "localhost/base"));
    let Some(runtime) = found else { skip!("neither crun nor runc makes containers here") };
    println!("with {runtime}");
    podman.set_runtime(runtime);
    podman.build(&["podman", "build", "--layers=false"], "app", &context);
    check_running(&podman);
    podman.podman(&["rm", "--force", "--time", "0", "one"]);
    buildah_builds_the_same(&podman, &context, &podman.exported("app"));
    nothing_is_left(&[&podman], &host);
}

#[test]
fn root_builds_runs_commits_saves_and_loads() {
    needs!(missing());
    lamina_oci_all_day(Who::Root);
}

#[test]
fn user_builds_runs_commits_saves_and_loads() {
    needs!(missing());
    lamina_oci_all_day(Who::User);
}

#[test]
fn root_builds_and_runs_with_debians_runtime() {
    needs!(missing());
    debians_runtime(Who::Root);
}

#[test]
fn user_builds_and_runs_with_debians_runtime() {
    needs!(missing());
    debians_runtime(Who::User);
}
