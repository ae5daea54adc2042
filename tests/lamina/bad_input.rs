//! What is refused: a sentence that says what to do, docker's exit code, and no debris.

use serde_json::json;
use support::needs;

use crate::place::{IMAGE, Place, Way};

#[test]
fn each_mistake_is_a_sentence_and_leaves_nothing() {
    needs!(Way::Root.missing());
    let place = Place::new(Way::Root);
    place.lamina(&["create", "--name", "taken", IMAGE, "true"]).ok();
    let before = place.leftovers();
    let taken = place.home.path().join("taken");
    std::fs::write(&taken, "").unwrap();
    let taken = taken.to_str().unwrap();
    let cases: [(&[&str], i32, &str); 21] = [
        (&["--pull", "never", "nothing:here"], 125, "nothing:here"),
        (&["127.0.0.1:1/nothing:here"], 125, "cannot be pulled"),
        (&["--no-such-flag", IMAGE], 125, "unexpected argument"),
        (&["--name", "taken", IMAGE, "true"], 125, "already in use"),
        (&["--name", "a b", IMAGE, "true"], 125, "Invalid container name"),
        (&["-v", "/no/such:/inside", IMAGE, "true"], 125, "make it first"),
        (&["-v", "name:/inside", IMAGE, "true"], 125, "named volumes are not supported"),
        (&["-v", "/tmp:/inside:fast", IMAGE, "true"], 125, "fast"),
        (&["-u", "nobody-here", IMAGE, "true"], 125, "no matching entries in passwd file"),
        (&["-u", "0:nobody-here", IMAGE, "true"], 125, "no matching entries in group file"),
        (&["-w", "relative", IMAGE, "true"], 125, "not an absolute path"),
        (&["-m", "much", IMAGE, "true"], 125, "invalid size"),
        (&["--cpus", "0", IMAGE, "true"], 125, "at least 0.01"),
        (&["--stop-signal", "SIGNOTHING", IMAGE, "true"], 125, "unknown signal"),
        (&["--env-file", "/no/such", IMAGE, "true"], 125, "/no/such"),
        (&["--security-opt", "seccomp=/no/such", IMAGE, "true"], 125, "/no/such"),
        (&["--cidfile", taken, IMAGE, "true"], 125, "--cidfile"),
        (&["--entrypoint", "", IMAGE], 125, "no command specified"),
        (&["-it", IMAGE, "true"], 125, "not a TTY"),
        (&[IMAGE, "nothing-there"], 127, "executable file not found"),
        (&[IMAGE, "/etc/passwd"], 126, "permission denied"),
    ];
    for (words, code, named) in cases {
        for detach in [&["run", "--rm"][..], &["run", "--rm", "-d"]] {
            if detach.len() == 3 && words[0] == "-it" {
                continue;
            }
            let said = place.lamina(&[detach, words].concat()).fails(code);
            assert!(said.contains(named), "{words:?}: {said}");
            assert_eq!(place.leftovers(), before, "{words:?}");
        }
    }
    assert_eq!(std::fs::read_to_string(taken).unwrap(), "", "the file of somebody else is as it was");
    assert_eq!(std::fs::read_dir(place.store().join("snapshots")).unwrap().count(), 2);
}

#[test]
fn an_image_of_another_machine_is_told_by_its_name() {
    needs!(Way::Root.missing());
    let place = Place::empty(Way::Root);
    let layout = place.home.path().join("other");
    let layer = place.home.path().join("layer.tar");
    support::machine::run("tar", &["-cf", layer.to_str().unwrap(), "-C", place.home.path().to_str().unwrap(), "store"]);
    crate::place::write_layout(&layout, &[layer], json!({"architecture": "s390x"}), "other:machine");
    place.load(&layout);
    let said = place.lamina(&["run", "--rm", "other:machine", "true"]).fails(125);
    assert!(said.contains("linux/s390x") && said.contains("other:machine"), "{said}");
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

#[test]
fn a_user_of_the_image_who_is_not_in_it_is_named() {
    for way in Way::ALL {
        needs!(way.missing());
        let place = Place::with_image(way, json!({"Env": ["PATH=/bin"], "User": "nobody-here"}));
        for words in [&["run", "--rm", IMAGE, "true"][..], &["run", "--rm", "-d", IMAGE, "true"]] {
            let said = place.lamina(words).fails(125);
            assert!(
                said.contains("nobody-here") && said.contains("no matching entries in passwd file"),
                "{way:?}: {said}"
            );
        }
        assert_eq!(place.leftovers(), Vec::<String>::new(), "{way:?}");
    }
}

#[test]
fn without_a_range_of_ids_another_user_than_root_is_an_error_that_names_the_files() {
    needs!(Way::OneId.missing());
    let place = Place::with_image(Way::OneId, json!({"Env": ["PATH=/bin"], "User": "user"}));
    for words in [&["run", "--rm", IMAGE, "true"][..], &["run", "--rm", "-u", "1000", IMAGE, "true"]] {
        let said = place.lamina(words).fails(125);
        assert!(said.contains("user 1000") && said.contains("/etc/subuid") && said.contains("/etc/subgid"), "{said}");
        assert_eq!(place.leftovers(), Vec::<String>::new());
    }
    place.lamina(&["run", "--rm", "-u", "0", IMAGE, "true"]).ok();
}

/// That it is told of without being asked, and what becomes of the container, is in `life`.
#[test]
fn a_command_in_a_container_whose_server_was_killed_fails_and_the_container_can_be_started_anew() {
    for way in [Way::Root, Way::ManyIds] {
        needs!(way.missing());
        let place = Place::new(way);
        let id = place.running("web");
        crate::life::await_log(&place, "web", "ready");
        crate::life::kill(&place, id.trim(), "server");
        // The monitor hears of it, and writes it down.
        while crate::life::inspect(&place, "web")["State"]["Error"] == "" {}
        let said = place.lamina(&["exec", "web", "wc", "/data/file"]).fails(126);
        assert!(
            said.contains("was killed by signal 9") && said.contains("stop the container and start it anew"),
            "{way:?}: {said}"
        );
        place.lamina(&["stop", "-t", "0", "web"]).ok();
        place.lamina(&["start", "web"]).ok();
        assert_eq!(place.lamina(&["exec", "web", "cat", "/data/file"]).ok(), "of the image\n", "{way:?}");
        place.lamina(&["rm", "-f", "web"]).ok();
        assert_eq!(place.leftovers(), Vec::<String>::new(), "{way:?}");
    }
}

#[test]
fn a_container_that_is_not_there_is_named() {
    needs!(Way::Root.missing());
    let place = Place::new(Way::Root);
    for words in [&["stop"][..], &["start"], &["kill"], &["rm"], &["logs"], &["wait"]] {
        let said = place.lamina(&[words, &["nobody"]].concat()).fails(125);
        assert!(said.contains("No such container: nobody"), "{words:?}: {said}");
    }
    let said = place.lamina(&["exec", "nobody", "true"]).fails(125);
    assert!(said.contains("No such container: nobody"), "{said}");
    // The others get their turn all the same.
    place.lamina(&["create", "--name", "one", IMAGE, "true"]).ok();
    let said = place.lamina(&["rm", "nobody", "one"]);
    assert_eq!((said.code, said.out.as_str()), (Some(125), "one\n"), "{said:?}");
}

#[test]
fn limits_without_a_cgroup_to_write_are_an_error() {
    needs!(Way::OneId.missing());
    let place = Place::new(Way::OneId);
    let said = place.lamina(&["run", "--rm", "--pids-limit", "10", IMAGE, "true"]).fails(125);
    assert!(said.contains("pids.max = 10") && said.contains("have it delegated to this user"), "{said}");
    assert_eq!(place.leftovers(), Vec::<String>::new());
}
