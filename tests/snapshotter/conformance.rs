//! containerd's own test suite for snapshotters, from Debian's Go sources, against the socket.

use std::path::Path;
use std::process::Command;

use support::{machine, needs};

use crate::daemon::{self, Daemon};

/// The cases of containerd 1.6; it skips Rename itself.
const CASES: usize = 21;

/// Where Debian puts Go sources.
const GOPATH: &str = "/usr/share/gocode";

fn suite() -> Option<String> {
    let sources = Path::new(GOPATH).join("src/github.com/containerd/containerd/snapshots/testsuite");
    let lacks = || (!sources.exists()).then(|| "golang-github-containerd-containerd-dev is not installed".into());
    machine::program("go").or_else(lacks)
}

#[test]
fn containerds_own_snapshotter_suite_passes() {
    needs!(daemon::missing(), suite());
    let daemon = Daemon::start();
    let mut go = Command::new("go");
    // The name of the architecture's cache: compiled packages are found again by the next run.
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-cache");
    go.args(["test", "-count=1", "-v", ".", "-test.root"]);
    go.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("snapshotter/conformance"));
    go.env("GO111MODULE", "off").env("GOPATH", GOPATH).env("GOCACHE", cache).env("GOFLAGS", "");
    let output = go.env("LAMINA_SOCKET", daemon.socket()).output().expect("run go test");
    let text = String::from_utf8_lossy(&output.stdout);
    let verdicts = |verdict: &str| text.matches(&format!("--- {verdict}: TestSnapshotter/")).count();
    let (passed, skipped, failed) = (verdicts("PASS"), verdicts("SKIP"), verdicts("FAIL"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && failed == 0, "{text}\n{errors}\n{}", daemon.log());
    println!("SnapshotterSuite: {passed} passed, {skipped} skipped by the suite itself");
    assert_eq!((passed + skipped, skipped), (CASES, 1), "{text}");
    for plugin in 1..=CASES {
        daemon.remove_all(&format!("case-{plugin}"));
    }
    daemon.assert_empty();
}
