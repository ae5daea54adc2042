//! runtime.md: what the verbs do, and when they must refuse.

use crate::bundle::{Bundle, Runtime};
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::json;
use std::fs;
use support::machine;

pub fn create_must_generate_an_error_for_an_id_in_use(runtime: &Runtime) {
    let bundle = Bundle::new(runtime);
    bundle.create().ok();
    assert!(bundle.create().refuses().contains("already exist"));
    assert_eq!(bundle.status(), "created");
}

pub fn create_must_not_run_the_process(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.script("echo ran > /ran").create().ok();
    assert!(!bundle.rootfs().join("ran").exists());
}

pub fn create_must_keep_config_as_it_was(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.script("echo first > /ran").create().ok();
    bundle.script("echo second > /ran").write();
    bundle.start().ok();
    bundle.await_end();
    assert_eq!(fs::read_to_string(bundle.rootfs().join("ran")).expect("it ran"), "first\n");
}

pub fn create_must_apply_everything_but_the_process(runtime: &Runtime) {
    let bundle = Bundle::new(runtime);
    bundle.create().ok();
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", bundle.pid())).expect("mounts of init");
    assert!(mounts.contains(" /dev/shm ") && !mounts.contains("/sys/fs/cgroup"), "{mounts}");
}

pub fn an_error_must_leave_no_container_behind(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.push("/mounts", json!({"destination": "/x", "type": "no-such-filesystem", "source": "x"}));
    bundle.create().refuses();
    bundle.verb(&["state", &bundle.id]).refuses();
    assert_eq!(bundle.cgroup_dirs(), Vec::<std::path::PathBuf>::new());
}

pub fn state_must_generate_an_error_for_an_unknown_id(runtime: &Runtime) {
    let said = Bundle::new(runtime).verb(&["state", "no-such-container"]).refuses();
    assert!(said.contains("does not exist"), "{said}");
}

pub fn state_must_have_its_properties(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.set("/annotations", json!({"org.example.key": "value"})).create().ok();
    let state = bundle.state();
    assert!(state["ociVersion"].as_str().is_some_and(|version| version.starts_with("1.")));
    assert_eq!((state["id"].as_str(), state["status"].as_str()), (Some(bundle.id.as_str()), Some("created")));
    assert!(state["pid"].as_i64().is_some_and(|pid| pid > 1));
    assert_eq!(state["bundle"].as_str(), bundle.path().to_str());
    assert_eq!(state["annotations"]["org.example.key"], "value");
}

pub fn start_must_run_the_process(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.script("echo ran > /ran").create().ok();
    bundle.start().ok();
    bundle.await_end();
    assert!(bundle.rootfs().join("ran").exists());
}

pub fn start_must_generate_an_error_unless_created(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.start().refuses();
    bundle.running().start().refuses();
    assert_eq!(bundle.status(), "running");
}

pub fn kill_must_generate_an_error_unless_created_or_running(runtime: &Runtime) {
    let bundle = Bundle::new(runtime);
    bundle.create().ok();
    bundle.start().ok();
    bundle.await_end();
    let said = bundle.verb(&["kill", &bundle.id, "KILL"]).refuses();
    assert!(said.contains("not running") || said.contains("already finished"), "{said}");
}

pub fn kill_must_send_the_signal(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.script("trap 'echo term > /heard; exit 0' TERM; echo > /gate; while :; do sleep 1000 & wait; done");
    let gate = bundle.rootfs().join("gate");
    machine::run("mkfifo", &[&gate]);
    // Open at both ends, so that nobody waits for the other.
    let gate = fs::File::options().read(true).write(true).open(gate).expect("the gate");
    bundle.create().ok();
    bundle.start().ok();
    let init = rustix::process::Pid::from_raw(bundle.pid()).expect("init");
    let process = rustix::process::pidfd_open(init, rustix::process::PidfdFlags::empty()).expect("it lives");
    let mut either = [PollFd::new(&gate, PollFlags::IN), PollFd::new(&process, PollFlags::IN)];
    poll(&mut either, None).expect("poll");
    assert!(!either[0].revents().is_empty(), "it ended before its trap was set");
    bundle.verb(&["kill", &bundle.id, "15"]).ok();
    crate::bundle::await_process(init);
    assert!(bundle.rootfs().join("heard").exists());
}

pub fn delete_must_generate_an_error_unless_stopped(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.running();
    bundle.verb(&["delete", &bundle.id]).refuses();
    assert_eq!(bundle.status(), "running");
}

pub fn delete_must_remove_what_create_made(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    bundle.running();
    bundle.verb(&["kill", &bundle.id, "KILL"]).ok();
    bundle.await_end();
    bundle.verb(&["delete", &bundle.id]).ok();
    bundle.verb(&["state", &bundle.id]).refuses();
    assert_eq!(bundle.cgroup_dirs(), Vec::<std::path::PathBuf>::new());
    assert!(bundle.rootfs().join("bin/busybox").exists(), "the root filesystem is not the runtime's");
}

pub fn a_deleted_id_may_be_used_again(runtime: &Runtime) {
    let bundle = Bundle::new(runtime);
    for _ in 0..2 {
        bundle.create().ok();
        bundle.verb(&["delete", "--force", &bundle.id]).ok();
    }
}
