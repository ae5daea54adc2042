//! kill -9 at any call of a load: afterwards the store holds the whole image or none of it, and loading again succeeds. It owns the
//! choice of the moment: strace kills at the n-th call of a kind, so a run can be repeated.

use support::{debian, lamina, machine, needs};

use crate::command::Images;

/// Calls at which a load is killed, and which one of them: beginning, unpacking, syncing, publishing.
const MOMENTS: [(&str, u32); 12] = [
    ("openat", 60),
    ("openat", 200),
    ("openat", 500),
    ("mkdirat", 3),
    ("utimensat", 30),
    ("write", 20),
    ("rename", 1),
    ("rename", 3),
    ("fsync", 1),
    ("fsync", 4),
    ("syncfs", 1),
    ("fdatasync", 2),
];

#[test]
fn load_that_was_killed_leaves_all_or_nothing_and_can_be_repeated() {
    needs!(debian::missing(), machine::program("strace"));
    let mut killed = 0;
    for (call, nth) in MOMENTS {
        let images = Images::new();
        let mut load = std::process::Command::new("strace");
        load.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
        load.args(["-e", &format!("inject={call}:signal=KILL:when={nth}")]);
        load.arg(lamina::snapshotter_binary())
            .args(["image", "--root"])
            .arg(images.root())
            .arg("load")
            .arg(debian::layout())
            .args(["--tag", "app"]);
        let status = load.status().expect("strace starts");
        killed += u32::from(!status.success());
        let root = images.root();
        let checked = machine::run(
            lamina::snapshotter_binary().to_str().expect("UTF-8"),
            &["fsck".as_ref(), "--root".as_ref(), root.as_os_str()],
        );
        assert!(checked.contains("no fault"), "{call} {nth}: {checked}");
        let listed = images.json(&["list"]);
        let names: Vec<_> = listed.as_array().expect("list").iter().map(|image| image["reference"].clone()).collect();
        assert!(names.is_empty() || names == ["docker.io/library/app:latest"], "{call} {nth}: {names:?}");
        assert!(images.files_below("ingest").is_empty(), "{call} {nth}: opening the store removes what is half-made");
        images.run(&["load".as_ref(), debian::layout().as_os_str(), "--tag".as_ref(), "app".as_ref()]);
        assert!(images.layers("app").iter().all(|layer| layer.exists()), "{call} {nth}");
        images.run(&["remove", "app"]);
        images.run(&["prune"]);
        images.assert_empty();
    }
    assert!(killed >= 8, "only {killed} loads were killed: the moments no longer meet the load");
}
