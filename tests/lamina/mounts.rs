//! Volumes of the host, anonymous ones, and directories in memory.

use std::fs;

use serde_json::json;
use support::needs;

use crate::place::{IMAGE, Place, Way, chmod};

#[test]
fn a_directory_of_the_host_is_seen_inside_and_can_be_read_only() {
    for way in Way::ALL {
        needs!(way.missing());
        let place = Place::new(way);
        let host = place.home.path().join("host");
        fs::create_dir(&host).unwrap();
        fs::write(host.join("file"), "of the host\n").unwrap();
        chmod(&host, 0o777);
        let volume = |options: &str| format!("{}:/inside{options}", host.display());
        let script = "cat /inside/file; echo made >/inside/made 2>/dev/null || echo refused";
        let said = place.lamina(&["run", "--rm", "-v", &volume(":ro"), IMAGE, "sh", "-c", script]).ok();
        assert_eq!(said, "of the host\nrefused\n", "{way:?}");
        assert!(!host.join("made").exists());
        place.lamina(&["run", "--rm", "-v", &volume(""), IMAGE, "sh", "-c", script]).ok();
        assert_eq!(fs::read_to_string(host.join("made")).unwrap(), "made\n", "{way:?}");
        // And nothing of it lies in the image, but the place that it was mounted on in a container that is gone.
        assert_eq!(place.sh("ls -d /inside 2>/dev/null || echo none").ok(), "none\n");
    }
}

#[test]
fn a_volume_of_the_image_begins_with_what_the_image_has_there() {
    for way in Way::ALL {
        needs!(way.missing());
        let place = Place::with_image(way, json!({"Env": ["PATH=/bin"], "Volumes": {"/data": {}}}));
        let script =
            "cat /data/file; stat -c %u /data/file; echo more >>/data/file; grep -c ' /data ' /proc/self/mountinfo";
        place.lamina(&["create", "--name", "one", IMAGE, "sh", "-c", script]).ok();
        let owner = if way == Way::OneId { 0 } else { 1000 };
        assert_eq!(place.lamina(&["start", "-a", "one"]).ok(), format!("of the image\n{owner}\n1\n"), "{way:?}");
        assert_eq!(place.lamina(&["start", "-a", "one"]).ok(), format!("of the image\nmore\n{owner}\n1\n"), "{way:?}");
        assert!(!place.lamina(&["diff", "one"]).ok().contains("/data/file"), "a volume is no change of the container");
        place.lamina(&["rm", "one"]).ok();
        assert_eq!(place.leftovers(), Vec::<String>::new(), "{way:?}");
    }
}

/// What another user than root owns inside belongs to an id that the user outside is not.
#[test]
fn files_of_others_in_a_volume_go_with_the_container() {
    needs!(Way::ManyIds.missing());
    let place = Place::new(Way::ManyIds);
    let script =
        "mkdir /kept/of; chown user /kept/of; chmod 700 /kept/of; touch /kept/of/file; chown user /kept/of/file";
    place.lamina(&["run", "--rm", "-v", "/kept", IMAGE, "sh", "-c", script]).ok();
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

#[test]
fn a_directory_in_memory_has_the_size_that_was_asked_for() {
    needs!(Way::Root.missing());
    let place = Place::new(Way::Root);
    let script = "grep ' /scratch ' /proc/self/mountinfo";
    let said = place.lamina(&["run", "--rm", "--tmpfs", "/scratch:size=1m,mode=700", IMAGE, "sh", "-c", script]).ok();
    assert!(said.contains("tmpfs") && said.contains("size=1024k") && said.contains("nosuid"), "{said}");
}
