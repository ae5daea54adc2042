//! What the runtime makes in an image for its mounts to stand on is no change of the container: neither `diff` nor `commit` shows it.

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::{machine, needs};

use crate::life::kill;
use crate::place::{IMAGE, Place, Way, chmod};

/// An image that has nothing for a mount to stand on.
const BARE: &str = "bare:1";

fn with_bare_image(way: Way) -> Place {
    let place = Place::new(way);
    let tar = place.home.path().join("bare.tar");
    let root = place.home.path().join("root");
    machine::run("tar", &["-cf", tar.to_str().unwrap(), "-C", root.to_str().unwrap(), "./bin"]);
    place.lamina(&["import", tar.to_str().unwrap(), BARE]).ok();
    place
}

fn diff(place: &Place, name: &str) -> String {
    place.lamina(&["diff", name]).ok()
}

/// The names in the archive of an image's topmost layer.
fn top_layer(place: &Place, image: &str) -> Vec<String> {
    let layout = place.store().join("saved");
    place.lamina(&["save", "--format", "oci-dir", "-o", layout.to_str().unwrap(), image]).ok();
    let blob = |descriptor: &Value| layout.join("blobs").join(descriptor["digest"].as_str().unwrap().replace(':', "/"));
    let json = |path: &Path| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap();
    let manifest = json(&blob(&json(&layout.join("index.json"))["manifests"][0]));
    let top = blob(manifest["layers"].as_array().unwrap().last().unwrap());
    let listed = machine::run("tar", &["-tzf", top.to_str().unwrap()]);
    listed.lines().map(str::to_owned).collect()
}

#[test]
fn only_what_the_container_wrote_is_seen_of_it() {
    for way in Way::ALL {
        needs!(way.missing());
        let place = with_bare_image(way);
        let host = place.home.path().join("host");
        fs::create_dir(&host).unwrap();
        chmod(&host, 0o777);
        let volume = format!("{}:/srv/of/host", host.display());
        let script = "[ -e /etc/hosts ] && [ -d /proc/1 ] && [ -d /srv/of/host ] && mkdir /made; echo x >/written";
        let words = ["create", "--name", "one", "-v", &volume, "-v", "/anonymous", BARE, "/bin/sh", "-c", script];
        place.lamina(&words).ok();
        assert_eq!(diff(&place, "one"), "");
        for _ in 0..2 {
            place.lamina(&["start", "-a", "one"]).ok();
            assert_eq!(diff(&place, "one"), "A /made\nA /written\n", "{way:?}");
        }
        place.lamina(&["commit", "one", "new:1"]).ok();
        assert_eq!(top_layer(&place, "new:1"), ["./", "made/", "written"], "{way:?}");
        // Where the image has a directory, nothing is left of the runtime's visit but what a mount stands on.
        place.lamina(&["run", "--name", "two", IMAGE, "true"]).ok();
        assert_eq!(diff(&place, "two"), "", "{way:?}");
    }
}

#[test]
fn a_file_of_the_container_shows_the_directory_that_was_made_above_it() {
    for way in [Way::Root, Way::ManyIds] {
        needs!(way.missing());
        let place = with_bare_image(way);
        let script = "echo x >/etc/own; echo x >/srv/kept/beside";
        place.lamina(&["run", "--name", "one", "-v", "/srv/kept/in", BARE, "/bin/sh", "-c", script]).ok();
        let expected = "A /etc\nA /etc/own\nA /srv\nA /srv/kept\nA /srv/kept/beside\n";
        assert_eq!(diff(&place, "one"), expected, "{way:?}");
        place.lamina(&["commit", "one", "new:1"]).ok();
        assert_eq!(
            top_layer(&place, "new:1"),
            ["./", "etc/", "etc/own", "srv/", "srv/kept/", "srv/kept/beside"],
            "{way:?}"
        );
        // What goes in beside the runtime's mounts is somebody's, whatever it lies on.
        let hosts = place.store().join("hosts");
        fs::write(&hosts, "127.0.0.1 here\n").unwrap();
        place.lamina(&["cp", hosts.to_str().unwrap(), "one:/etc/hosts"]).ok();
        assert!(diff(&place, "one").contains("A /etc/hosts\n"), "{way:?}");
        place.lamina(&["rm", "one"]).ok();
        assert_eq!(place.leftovers(), Vec::<String>::new(), "{way:?}");
    }
}

#[test]
fn a_kill_of_whoever_serves_the_container_changes_nothing_of_that() {
    needs!(Way::Root.missing());
    let place = with_bare_image(Way::Root);
    let script = "echo x >/written; echo ready; while :; do /bin/sleep 100000; done";
    let id = place.lamina(&["run", "-d", "--name", "one", BARE, "/bin/sh", "-c", script]).ok();
    crate::life::await_log(&place, "one", "ready");
    assert_eq!(diff(&place, "one"), "A /written\n", "while it runs");
    place.lamina(&["commit", "one", "running:1"]).ok();
    assert_eq!(top_layer(&place, "running:1"), ["./", "written"]);
    for who in ["server", "monitor"] {
        kill(&place, id.trim(), who);
        assert_eq!(diff(&place, "one"), "A /written\n", "{who}");
    }
    place.lamina(&["kill", "one"]).ok();
    place.lamina(&["wait", "one"]).ok();
    place.lamina(&["start", "one"]).ok();
    assert_eq!(diff(&place, "one"), "A /written\n", "started anew");
}
