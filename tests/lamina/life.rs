//! The verbs on containers, the monitor, what is left afterwards, and what is told when somebody kills what the container needs.

use std::fs;
use std::io::Read as _;
use std::process::{Child, Stdio};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;
use support::{machine, needs};

use crate::place::{IMAGE, Place, Way};

/// Kills a process of `run.json`, and waits until it has ended.
pub fn kill(place: &Place, id: &str, who: &str) {
    let pid = place.run_file(id)[who]["pid"].as_i64().unwrap() as i32;
    let process = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    pidfd_send_signal(&process, Signal::KILL).unwrap();
    let mut polled = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut polled, None).unwrap();
}

/// Follows the log until it says this; the follower is ended with the guard.
pub fn await_log(place: &Place, name: &str, wanted: &str) {
    let mut command = place.command(&["logs", "-f", name]);
    let mut follower: Child = machine::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let mut heard = Vec::new();
    let mut buffer = [0_u8; 1024];
    let (mut out, mut err) = (follower.stdout.take().unwrap(), follower.stderr.take().unwrap());
    while !String::from_utf8_lossy(&heard).contains(wanted) {
        let mut polled = [&out as &dyn std::os::fd::AsFd, &err]
            .map(|stream| rustix::event::PollFd::from_borrowed_fd(stream.as_fd(), rustix::event::PollFlags::IN));
        rustix::event::poll(&mut polled, None).unwrap();
        let [from_out, from_err] = polled.map(|one| !one.revents().is_empty());
        let read = if from_out { out.read(&mut buffer).unwrap() } else { 1 };
        if from_out {
            heard.extend_from_slice(&buffer[..read]);
        }
        let more = if from_err { err.read(&mut buffer).unwrap() } else { 0 };
        heard.extend_from_slice(&buffer[..more.min(if from_err { more } else { 0 })]);
        assert!(read > 0 || more > 0, "the log ended: {}", String::from_utf8_lossy(&heard));
    }
    follower.kill().unwrap();
    follower.wait().unwrap();
}

pub fn inspect(place: &Place, name: &str) -> Value {
    let text = place.lamina(&["inspect", name]).ok();
    serde_json::from_str::<Value>(&text).unwrap()[0].clone()
}

#[test]
fn a_container_lives_in_the_background_from_run_to_rm() {
    for way in Way::ALL {
        needs!(way.missing());
        let place = Place::new(way);
        let id = place.running("web");
        await_log(&place, "web", "ready");
        assert!(place.lamina(&["ps"]).ok().lines().nth(1).unwrap().contains("Up "), "{way:?}");
        assert_eq!(inspect(&place, "web")["State"]["Status"], "running");
        assert_eq!(place.lamina(&["exec", "web", "sh", "-c", "id -u; cat /proc/1/comm"]).ok(), "0\nsh\n", "{way:?}");
        assert!(place.lamina(&["rm", "web"]).fails(125).contains("container is running"));
        assert_eq!(place.lamina(&["stop", "web"]).ok(), "web\n");
        assert!(place.lamina(&["ps", "-a"]).ok().contains("Exited (7)"), "{way:?}");
        assert!(!place.lamina(&["ps"]).ok().contains("web"));
        assert_eq!(place.lamina(&["wait", "web"]).ok(), "7\n");
        assert_eq!(place.lamina(&["start", "web"]).ok(), "web\n");
        // Before its trap is set, the first process of a pid namespace ignores the signal (signal handling in pid_namespaces(7)).
        await_log(&place, "web", "ready\nready\n");
        assert_eq!(place.lamina(&["kill", "-s", "TERM", &id[..12]]).ok(), format!("{}\n", &id[..12]));
        assert_eq!(place.lamina(&["wait", "web"]).ok(), "7\n");
        assert!(place.lamina(&["kill", "web"]).fails(125).contains("is not running"));
        assert_eq!(place.lamina(&["rm", "web"]).ok(), "web\n");
        assert_eq!(place.leftovers(), Vec::<String>::new(), "{way:?}");
    }
}

#[test]
fn what_a_container_wrote_is_there_at_its_next_start() {
    for way in Way::ALL {
        needs!(way.missing());
        let place = Place::new(way);
        let script = "cat /kept 2>/dev/null; echo again >>/kept; chmod 4711 /kept; stat -c %a /kept";
        let id = place.lamina(&["create", "--name", "one", IMAGE, "sh", "-c", script]).ok();
        assert_eq!(inspect(&place, "one")["State"]["Status"], "created");
        assert_eq!(place.lamina(&["start", "-a", "one"]).ok(), "4711\n", "{way:?}");
        assert_eq!(place.lamina(&["start", "-a", id.trim()]).ok(), "again\n4711\n", "{way:?}");
        assert_eq!(place.lamina(&["logs", "one"]).ok(), "4711\nagain\n4711\n");
    }
}

#[test]
fn logs_keep_both_streams_apart_and_know_their_times() {
    needs!(Way::Root.missing());
    let place = Place::new(Way::Root);
    place.lamina(&["run", "--name", "said", IMAGE, "sh", "-c", "echo one; echo two; echo three >&2; printf part"]).ok();
    let said = place.lamina(&["logs", "said"]);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("one\ntwo\npart", "three\n"));
    let last = place.lamina(&["logs", "--tail", "1", "said"]);
    assert!(["part", "three\n"].contains(&(last.out + &last.err).as_str()), "the last record of either stream");
    let stamped = place.lamina(&["logs", "-t", "said"]).ok();
    let (time, word) = stamped.lines().next().unwrap().split_once(' ').unwrap();
    assert!(time.ends_with('Z') && word == "one", "{stamped}");
    assert_eq!(place.lamina(&["logs", "--since", "2100-01-01T00:00:00Z", "said"]).ok(), "");
    assert_eq!(place.lamina(&["logs", "--since", "1h", "said"]).ok(), "one\ntwo\npart");
    // It ends with the container, which has ended.
    assert_eq!(place.lamina(&["logs", "-f", "said"]).ok(), "one\ntwo\npart");
}

#[test]
fn a_filter_and_json_are_for_programs() {
    needs!(Way::Root.missing());
    let place = Place::new(Way::Root);
    place.lamina(&["create", "--name", "one", "-l", "kind=a", IMAGE, "true"]).ok();
    let id = place.lamina(&["create", "--name", "two", "--label", "kind=b", IMAGE, "true"]).ok();
    assert_eq!(place.lamina(&["ps", "-aq", "--no-trunc", "--filter", "label=kind=b"]).ok(), id);
    let lines = place.lamina(&["ps", "-a", "--format", "json", "-f", "name=two"]).ok();
    let one: Value = serde_json::from_str(lines.trim()).unwrap();
    assert_eq!((&one["State"], &one["ID"]), (&"created".into(), &id.trim().into()));
    assert!(place.lamina(&["ps", "-f", "colour=red"]).fails(125).contains("invalid filter"));
}

#[test]
fn exec_has_what_the_container_has_and_what_is_asked_for() {
    for way in [Way::Root, Way::ManyIds] {
        needs!(way.missing());
        let place = Place::new(way);
        place.running("web");
        let words =
            ["exec", "-u", "user", "-e", "A=b", "-w", "/data", "web", "sh", "-c", "id -u; id -G; echo $A; pwd; exit 9"];
        let said = place.lamina(&words);
        assert_eq!((said.code, said.out.as_str()), (Some(9), "1000\n1000 42\nb\n/data\n"), "{way:?}: {said:?}");
        assert!(place.lamina(&["exec", "web", "nothing-there"]).fails(127).contains("executable file not found"));
        assert!(place.lamina(&["exec", "web", "/etc/passwd"]).fails(126).contains("permission denied"));
        place.lamina(&["exec", "-d", "web", "sh", "-c", "echo made >/made"]).ok();
        place.lamina(&["exec", "web", "sh", "-c", "until [ -s /made ]; do :; done"]).ok();
        place.lamina(&["kill", "web"]).ok();
        place.lamina(&["wait", "web"]).ok();
        assert!(place.lamina(&["exec", "web", "true"]).fails(125).contains("is not running"));
    }
}

/// I/O answers with errors instead of hanging, and everybody who asks is told.
#[test]
fn a_server_that_is_killed_is_told_of_and_the_container_can_be_removed() {
    for way in [Way::Root, Way::ManyIds] {
        needs!(way.missing());
        let place = Place::new(way);
        // What the kernel has cached is still read; a change is asked of the server.
        let script =
            "echo kept >/kept; echo ready; while touch /kept 2>/dev/null; do :; done; echo lost; while :; do :; done";
        let id = place.lamina(&["run", "-d", "--name", "web", IMAGE, "sh", "-c", script]).ok();
        await_log(&place, "web", "ready");
        kill(&place, id.trim(), "server");
        await_log(&place, "web", "lost");
        let shown = inspect(&place, "web");
        let told = shown["State"]["Error"].as_str().unwrap().to_owned();
        assert!(told.contains("was killed by signal 9") && told.contains("start it anew"), "{way:?}: {told}");
        assert_eq!(shown["State"]["Status"], "running");
        assert!(place.lamina(&["logs", "web"]).err.contains("was killed by signal 9"));
        place.lamina(&["stop", "-t", "0", "web"]).ok();
        assert!(inspect(&place, "web")["State"]["Error"].as_str().unwrap().contains("signal 9"));
        let upper = inspect(&place, "web")["GraphDriver"]["Data"]["UpperDir"].as_str().unwrap().to_owned();
        assert_eq!(fs::read_to_string(format!("{upper}/kept")).unwrap(), "kept\n", "what was written is kept");
        place.lamina(&["rm", "web"]).ok();
        assert_eq!(place.leftovers(), Vec::<String>::new(), "{way:?}");
    }
}

#[test]
fn a_monitor_that_is_killed_leaves_a_truth_that_can_be_removed() {
    for way in [Way::Root, Way::OneId] {
        needs!(way.missing());
        let place = Place::new(way);
        let id = place.running("web");
        await_log(&place, "web", "ready");
        kill(&place, &id, "monitor");
        assert!(place.lamina(&["ps"]).ok().contains("Up "), "{way:?}");
        assert_eq!(place.lamina(&["exec", "web", "echo", "alive"]).ok(), "alive\n");
        place.lamina(&["kill", "web"]).ok();
        assert_eq!(place.lamina(&["wait", "web"]).ok(), "255\n");
        let shown = inspect(&place, "web");
        assert!(shown["State"]["Error"].as_str().unwrap().contains("monitor was killed"), "{shown}");
        // It can be started anew, over all that was left.
        place.lamina(&["start", "web"]).ok();
        kill(&place, &id, "monitor");
        place.lamina(&["rm", "-f", "web"]).ok();
        assert_eq!(place.leftovers(), Vec::<String>::new(), "{way:?}");
    }
}

#[test]
fn a_hundred_containers_leave_nothing() {
    for way in [Way::Root, Way::ManyIds] {
        needs!(way.missing());
        let place = Place::new(way);
        let cgroups = || -> Vec<String> {
            let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
            let below =
                hierarchies.flat_map(|hierarchy| fs::read_dir(hierarchy.path()).into_iter().flatten().flatten());
            below
                .map(|entry| entry.file_name().into_string().unwrap())
                .filter(|name| name.starts_with("lamina-oci-"))
                .collect()
        };
        let mut ids = Vec::new();
        for _ in 0..machine::number_from_env("LAMINA_SOAK", 100) / 2 {
            let file = place.store().join("id");
            place.lamina(&["run", "--rm", "--cidfile", file.to_str().unwrap(), IMAGE, "true"]).ok();
            ids.push(fs::read_to_string(&file).unwrap());
            fs::remove_file(&file).unwrap();
        }
        assert_eq!(place.leftovers(), Vec::<String>::new(), "{way:?}");
        let left: Vec<String> =
            cgroups().into_iter().filter(|name| ids.iter().any(|id| name.contains(id.as_str()))).collect();
        assert_eq!(left, Vec::<String>::new(), "{way:?}");
        let snapshots = fs::read_dir(place.store().join("snapshots")).unwrap().count();
        assert_eq!(snapshots, 1, "{way:?}: the layer of the image");
    }
}
