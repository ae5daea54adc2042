//! What is unpacked against what umoci unpacks of the same image: owners, modes, attributes, times, links, devices, and what
//! whiteouts leave.

use support::machine;
use support::tree::{Tree, View};
use support::{KernelOverlay, debian, needs};

use crate::command::Images;

#[test]
fn image_shows_the_tree_that_umoci_unpacks() {
    needs!(debian::missing(), KernelOverlay::missing());
    let images = Images::new();
    let layout = debian::layout();
    images.run(&["load".as_ref(), layout.as_os_str(), "--tag".as_ref(), "app".as_ref()]);
    assert!(images.layers("app").len() >= 3);
    let bundle = images.scratch("bundle");
    machine::run(
        "umoci",
        &["unpack", "--image", &format!("{}:app", layout.display()), bundle.to_str().expect("UTF-8")],
    );
    let mounted = images.mounted("app");
    let (mut theirs, mut ours) = (Tree::read(&bundle.join("rootfs")), Tree::read_despite_d_ino(mounted.path()));
    // umoci writes into the directory after it has dated it.
    for tree in [&mut theirs, &mut ours] {
        if let Some(root) = tree.0.get_mut(".") {
            root.mtime = None;
        }
    }
    // Of a link whose other names a later layer replaced, overlayfs counts those of its layer.
    theirs.assert_same(&ours, View { nlinks: false, ..View::ALL });
    assert!(ours.0.len() > 30 && ours.0.contains_key("srv/app/null"), "{} files", ours.0.len());
}

#[test]
fn sizes_are_those_of_the_disk() {
    needs!(debian::missing());
    let images = Images::new();
    images.run(&["load".as_ref(), debian::layout().as_os_str(), "--tag".as_ref(), "app".as_ref()]);
    let inspected = images.json(&["inspect", "app"]);
    for layer in inspected["layers"].as_array().expect("layers") {
        let counted = layer["disk_bytes"].as_u64().expect("it was counted");
        let dir = layer["directory"].as_str().expect("directory");
        let du = machine::run("du", &["-s", "-B1", dir]);
        let walked: u64 = du.split_whitespace().next().and_then(|bytes| bytes.parse().ok()).expect("a number");
        // What du counts besides is the blocks that a filesystem takes for its own records.
        let near = counted.abs_diff(walked) <= walked / 50 + 65_536;
        assert!(near, "{dir}: counted {counted}, du says {walked}");
    }
}
