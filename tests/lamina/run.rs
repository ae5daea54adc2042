//! What a container is made of: its files and their owners, its process, its environment, its limits.

use serde_json::json;
use support::person::Person;
use support::said::Said;
use support::{machine, needs};

use crate::place::{IMAGE, Place, Way};

#[test]
fn a_container_runs_on_a_mount_that_nobody_else_has() {
    for way in Way::ALL {
        needs!(way.missing());
        let place = Place::new(way);
        let said = place.sh("cat /proc/self/mountinfo | head -n 1; hostname; echo wrong >&2; exit 3");
        let root = said.out.lines().next().unwrap();
        assert!(root.contains(" / / ") && root.contains("- fuse.lamina-fs lamina "), "{way:?}: {said:?}");
        assert_eq!((said.out.lines().nth(1).unwrap().len(), said.err.as_str()), (12, "wrong\n"), "{way:?}");
        assert_eq!(said.code, Some(3));
        assert_eq!(place.leftovers(), Vec::<String>::new(), "{way:?}");
    }
}

/// As the mounts of root that `lamina-fs` makes itself: a large file in fewer requests.
#[test]
fn the_kernel_reads_further_ahead_where_root_may_ask_for_it() {
    needs!(Way::Root.missing(), machine::writable("/sys"));
    let place = Place::new(Way::Root);
    place.lamina(&["run", "-d", "--name", "one", IMAGE, "sleep", "100000"]).ok();
    let mounts = place.lamina(&["exec", "one", "cat", "/proc/self/mountinfo"]).ok();
    let device = mounts.lines().next().unwrap().split(' ').nth(2).unwrap();
    let ahead = std::fs::read_to_string(format!("/sys/class/bdi/{device}/read_ahead_kb")).unwrap();
    assert_eq!(ahead, "512\n", "{mounts}");
}

#[test]
fn owners_are_those_of_the_image_where_there_are_ids_for_them() {
    for way in [Way::Root, Way::ManyIds] {
        needs!(way.missing());
        let place = Place::new(way);
        let script = "stat -c %u:%g /etc/shadow /data/file; chown 7:8 /etc/shadow; echo more >>/etc/shadow; stat -c %u:%g /etc/shadow";
        assert_eq!(place.sh(script).ok(), "0:42\n1000:1000\n7:8\n", "{way:?}");
    }
}

/// What a package manager does all day must work, and nothing may show an owner who does not exist.
#[test]
fn with_one_id_every_file_is_roots_and_owners_are_changed_without_effect() {
    needs!(Way::OneId.missing());
    let place = Place::new(Way::OneId);
    let script = "stat -c %u:%g /etc/shadow /data/file; chown 7:8 /etc/shadow && echo more >>/etc/shadow && stat -c %u:%g /etc/shadow; id -u";
    assert_eq!(place.sh(script).ok(), "0:0\n0:0\n0:0\n0\n");
    let said = place.lamina(&["run", "--rm", "-u", "user", IMAGE, "true"]).fails(125);
    assert!(said.contains("user 1000") && said.contains("/etc/subuid"), "{said}");
}

#[test]
fn users_are_found_in_the_image() {
    for way in [Way::Root, Way::ManyIds] {
        needs!(way.missing());
        let place = Place::with_image(way, json!({"Env": ["PATH=/bin"], "User": "user", "WorkingDir": "/home/user"}));
        let said = place.sh("id -u; id -G; pwd; echo $HOME; touch made && stat -c %u made").ok();
        assert_eq!(said, "1000\n1000 42\n/home/user\n/home/user\n1000\n", "{way:?}");
        let said = place.lamina(&["run", "--rm", "--user", "1000:shadow", IMAGE, "id", "-g"]).ok();
        assert_eq!(said, "42\n");
    }
}

#[test]
fn entrypoint_command_and_environment_are_put_together() {
    needs!(Way::Root.missing());
    let config = json!({"Env": ["PATH=/bin", "A=image"], "Entrypoint": ["echo", "entry"], "Cmd": ["command"], "Labels": {"of": "image"}});
    let place = Place::with_image(Way::Root, config);
    assert_eq!(place.lamina(&["run", "--rm", IMAGE]).ok(), "entry command\n");
    assert_eq!(place.lamina(&["run", "--rm", IMAGE, "-x", "y"]).ok(), "entry -x y\n");
    let file = place.home.path().join("variables");
    std::fs::write(&file, "# a comment\nB=file\nA=file\n").unwrap();
    let words =
        ["run", "--rm", "--env-file", file.to_str().unwrap(), "-e", "C=flag", "-e", "D", "--entrypoint", "env", IMAGE];
    let mut command = place.command(&words);
    command.env("D", "callers");
    let said = Said::of(&mut command).ok();
    for line in ["A=file", "B=file", "C=flag", "D=callers", "PATH=/bin", "HOME=/root"] {
        assert!(said.lines().any(|found| found == line), "{line}: {said}");
    }
}

#[test]
fn the_root_can_be_read_only_and_tmpfs_is_writable_all_the_same() {
    for way in [Way::Root, Way::ManyIds] {
        needs!(way.missing());
        let place = Place::new(way);
        let script = "touch /made 2>/dev/null || echo refused; touch /scratch/made && echo made";
        let said = place.lamina(&["run", "--rm", "--read-only", "--tmpfs", "/scratch", IMAGE, "sh", "-c", script]).ok();
        assert_eq!(said, "refused\nmade\n", "{way:?}");
    }
}

#[test]
fn a_network_is_its_own_or_the_hosts() {
    needs!(Way::Root.missing());
    let place = Place::new(Way::Root);
    let own = std::fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    let inside = |words: &[&str]| {
        place
            .lamina(&[&["run", "--rm"], words, &[IMAGE, "readlink", "/proc/self/ns/net"]].concat())
            .ok()
            .trim()
            .to_owned()
    };
    assert_eq!(inside(&["--net", "host"]), own);
    assert_ne!(inside(&[]), own);
}

#[test]
fn limits_are_those_of_the_cgroup() {
    needs!(Way::Root.missing(), machine::program("prlimit"));
    let place = Place::new(Way::Root);
    let script = "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null; \
                  cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true";
    let said = place.lamina(&["run", "--rm", "--pids-limit", "50", "-m", "64m", IMAGE, "sh", "-c", script]).ok();
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["50", "67108864"]);
}

#[test]
fn standard_input_is_passed_only_when_asked_for() {
    for way in [Way::Root, Way::OneId] {
        needs!(way.missing());
        let place = Place::new(way);
        let input = place.home.path().join("input");
        std::fs::write(&input, "said\n").unwrap();
        for (flags, heard) in [(&["-i"][..], "said\n"), (&[], "")] {
            let mut command = place.command(&[&["run", "--rm"], flags, &[IMAGE, "cat"]].concat());
            command.stdin(std::fs::File::open(&input).unwrap());
            assert_eq!(Said::of(&mut command).ok(), heard, "{way:?} {flags:?}");
        }
    }
}

/// The default profile of containers-common denies what containers have no business with.
#[test]
fn system_calls_are_filtered_unless_unconfined() {
    needs!(Way::Root.missing());
    needs!(
        (!std::path::Path::new("/usr/share/containers/seccomp.json").exists())
            .then(|| "no default profile here".to_owned())
    );
    let place = Place::new(Way::Root);
    let mode = |words: &[&str]| {
        let said =
            place.lamina(&[&["run", "--rm"], words, &[IMAGE, "grep", "Seccomp:", "/proc/self/status"]].concat()).ok();
        said.split_whitespace().last().map(str::to_owned)
    };
    assert_eq!(mode(&[]).as_deref(), Some("2"));
    assert_eq!(mode(&["--security-opt", "seccomp=unconfined"]).as_deref(), Some("0"));
}

#[test]
fn a_person_with_one_id_is_told_so_once_and_a_script_never() {
    needs!(Way::OneId.missing(), machine::program("setsid"));
    let place = Place::new(Way::OneId);
    let command = |word| place.command(&["run", "--rm", IMAGE, "echo", word]);
    assert_eq!(place.lamina(&["run", "--rm", IMAGE, "true"]).err, "");
    let mut person = Person::sit_down(&command("first"));
    person.sees("no range of ids for this user");
    person.sees("usermod --add-subuids");
    person.sees("first");
    assert!(person.child.wait().unwrap().success());
    let mut person = Person::sit_down(&command("again"));
    let before = person.sees("again");
    assert!(person.child.wait().unwrap().success());
    assert!(!before.contains("no range"), "{before}");
}
