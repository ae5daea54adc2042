//! Every hole that runtimes are known to have had: each test is an image, or a process, that tries to use it.

use crate::bundle::Bundle;
use serde_json::json;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use support::{machine, needs};

fn missing() -> Option<String> {
    machine::root().or_else(|| machine::program("busybox"))
}

/// CVE-2019-5736: an entry point that is /proc/self/exe would run, and could then overwrite, the runtime's program.
#[test]
fn the_runtimes_program_cannot_be_written_from_inside() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    symlink("/proc/self/exe", bundle.rootfs().join("bin/self")).expect("a link");
    let program = bundle.runtime.program.clone();
    let before = fs::metadata(&program).expect("the program");
    // What the container runs is the sealed copy: it prints its version, and it is on a mount that nobody can write.
    bundle.set("/process/args", json!(["/proc/self/exe", "--version"]));
    bundle.set("/process/capabilities", json!(null));
    let said = bundle.run();
    assert!(said.out.contains("spec:") || said.code != Some(0), "{said:?}");
    bundle.set("/process/args", json!(["sleep", "100000"]));
    bundle.create().ok();
    // While init waits for `start` it is the runtime: that is when its file could be reached.
    let opened = fs::OpenOptions::new().write(true).open(format!("/proc/{}/exe", bundle.pid()));
    let errno = opened.err().and_then(|error| error.raw_os_error());
    assert!(matches!(errno, Some(libc::EROFS | libc::ETXTBSY)), "{errno:?}");
    let sealed = rustix::fs::statvfs(format!("/proc/{}/exe", bundle.pid())).expect("statvfs");
    assert!(sealed.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    assert_eq!(fs::metadata(&program).expect("the program").len(), before.len());
}

/// CVE-2021-30465 and its like: a mount target that is a link leads out of the root filesystem.
#[test]
fn links_of_the_image_stay_inside_the_root() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    let outside = bundle.path().join("outside");
    fs::create_dir(&outside).expect("a directory");
    symlink(&outside, bundle.rootfs().join("absolute")).expect("a link");
    symlink("../../../../../..", bundle.rootfs().join("upwards")).expect("a link");
    for name in ["absolute", "upwards/tmp"] {
        bundle.push(
            "/mounts",
            json!({"destination": format!("/{name}"), "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"]}),
        );
    }
    let said = bundle.sh("touch /absolute/x /upwards/tmp/x; grep -c size=64k /proc/self/mountinfo");
    assert_eq!(said, "2\n");
    assert_eq!(fs::read_dir(&outside).expect("the directory").count(), 0);
    // The links that led nowhere inside were made to lead somewhere inside.
    assert!(bundle.rootfs().join(outside.strip_prefix("/").expect("absolute")).is_dir());
}

/// CVE-2019-16884, CVE-2019-19921, CVE-2023-27561: a false /proc is believed.
#[test]
fn proc_is_procfs_and_nothing_else() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    let false_proc = bundle.path().join("false");
    fs::create_dir(&false_proc).expect("a directory");
    bundle.push("/mounts", json!({"destination": "/proc", "type": "bind", "source": false_proc, "options": ["bind"]}));
    assert!(bundle.create().refuses().contains("/proc"));

    let mut bundle = Bundle::ours();
    bundle.push("/mounts", json!({"destination": "/proc/sys", "type": "tmpfs", "source": "tmpfs"}));
    assert!(bundle.create().refuses().contains("inside /proc"));

    let bundle = Bundle::ours();
    fs::remove_dir(bundle.rootfs().join("proc")).expect("/proc of the image");
    symlink("/tmp", bundle.rootfs().join("proc")).expect("a link");
    assert!(bundle.create().refuses().contains("ordinary directory"));
}

/// CVE-2024-21626: a working directory behind a descriptor that was left open is outside.
#[test]
fn a_working_directory_outside_is_refused_and_descriptors_are_closed() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    let host = fs::File::open("/").expect("the host's root");
    let raw = rustix::io::fcntl_dupfd_cloexec(&host, 40).expect("a descriptor");
    rustix::io::fcntl_setfd(&raw, rustix::io::FdFlags::empty()).expect("inherited");
    let number = raw.as_raw_fd();
    assert_eq!(bundle.sh(&format!("test -e /proc/self/fd/{number} || echo closed")), "closed\n");
    bundle.set("/process/cwd", json!(format!("/proc/self/fd/{number}")));
    let said = bundle.script("pwd; ls").run();
    assert!(said.code != Some(0), "{said:?}");
    for low in 3..12 {
        bundle.set("/process/cwd", json!(format!("/proc/self/fd/{low}")));
        let said = bundle.script("ls -d etc/hostname etc/os-release root/.. 2>/dev/null | wc -l; ls /").run();
        assert!(!said.out.contains("boot") && !said.out.contains("home"), "{low}: {said:?}");
    }
}

#[test]
fn preserved_descriptors_are_passed_and_no_others() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    let file = fs::File::open("/etc/hostname").or_else(|_| fs::File::open("/etc/passwd")).expect("a file");
    bundle.script("test -e /proc/self/fd/3 && echo three; test -e /proc/self/fd/4 || echo four is closed").write();
    let script = "exec 3<&0; exec 4<&0; exec \"$@\"";
    let program = bundle.runtime.program.clone();
    let mut command = std::process::Command::new("bash");
    command.args(["-c", script, "bash"]).arg(program).arg("--root").arg(bundle.path().join("state"));
    command.args(["run", "--preserve-fds", "1", "--bundle"]).arg(bundle.path()).arg(&bundle.id).stdin(file);
    let said = String::from_utf8(command.output().expect("run").stdout).expect("UTF-8");
    assert_eq!(said, "three\nfour is closed\n");
}

/// CVE-2025-31133: masking binds whatever stands at /dev/null.
#[test]
fn masks_are_the_hosts_null_device_whatever_the_image_has() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    fs::write(bundle.rootfs().join("dev/null"), "planted").expect("a false null device");
    fs::write(bundle.rootfs().join("key"), "secret").expect("a file");
    bundle.set("/linux/maskedPaths", json!(["/key"]));
    assert_eq!(bundle.sh("cat /key; stat -c '%F %t:%T' /key"), "character special file 1:3\n");
}

/// CVE-2025-52565: /dev/console is bound by name.
#[test]
fn console_cannot_be_bound_elsewhere() {
    needs!(missing(), machine::program("script"));
    let mut bundle = Bundle::ours();
    let mounts = bundle.config["mounts"].as_array_mut().expect("mounts");
    mounts.retain(|mount| mount["destination"] != "/dev");
    let outside = bundle.path().join("outside");
    fs::write(&outside, "untouched").expect("a file");
    symlink(&outside, bundle.rootfs().join("dev/console")).expect("a link");
    bundle.set("/process/terminal", json!(true)).script("echo > /dev/console");
    bundle.run();
    assert_eq!(fs::read_to_string(&outside).expect("the file"), "untouched");
}

/// A false multiplexer would hand the caller's socket a file of the image's choice.
#[test]
fn a_terminal_comes_from_a_devpts_or_not_at_all() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    let mounts = bundle.config["mounts"].as_array_mut().expect("mounts");
    mounts.retain(|mount| !mount["destination"].as_str().is_some_and(|place| place.starts_with("/dev")));
    fs::create_dir(bundle.rootfs().join("dev/pts")).expect("a directory");
    fs::write(bundle.rootfs().join("dev/pts/ptmx"), "").expect("a false multiplexer");
    bundle.set("/process/terminal", json!(true));
    assert!(bundle.run().refuses().contains("devpts"));
}

/// CVE-2026-41579: nodes are made behind a /dev that is a link.
#[test]
fn a_dev_that_is_a_link_is_refused() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    let mounts = bundle.config["mounts"].as_array_mut().expect("mounts");
    mounts.retain(|mount| !mount["destination"].as_str().is_some_and(|place| place.starts_with("/dev")));
    fs::remove_dir(bundle.rootfs().join("dev")).expect("/dev of the image");
    symlink("/tmp", bundle.rootfs().join("dev")).expect("a link");
    assert!(bundle.create().refuses().contains("not a link"));
    assert_eq!(fs::read_dir(bundle.rootfs().join("tmp")).expect("/tmp").count(), 0);
}

#[test]
fn a_false_device_of_the_image_is_not_believed() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    let mounts = bundle.config["mounts"].as_array_mut().expect("mounts");
    mounts.retain(|mount| !mount["destination"].as_str().is_some_and(|place| place.starts_with("/dev")));
    fs::write(bundle.rootfs().join("dev/null"), "planted").expect("a false null device");
    assert!(bundle.create().refuses().contains("/dev/null"));
}

#[test]
fn no_capabilities_means_none_at_all() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    bundle.set("/process/capabilities", json!(null));
    let said = bundle.sh("grep ^Cap /proc/self/status | awk '{print $2}'");
    assert!(said.lines().count() == 5 && said.lines().all(|set| set.bytes().all(|digit| digit == b'0')), "{said}");
}

#[test]
fn groups_of_the_caller_are_dropped() {
    needs!(missing(), machine::program("setpriv"));
    let mut bundle = Bundle::ours();
    bundle.before = ["setpriv", "--groups", "4242,4343"].map(str::to_owned).to_vec();
    assert_eq!(bundle.sh("id -G"), "0\n");
}

/// CVE-2016-9962: a process of the container looks into the runtime that enters it.
#[test]
fn the_runtime_cannot_be_looked_into_while_it_enters() {
    needs!(missing(), machine::program("strace"));
    let mut bundle = Bundle::ours();
    bundle.running();
    let trace = bundle.path().join("trace");
    bundle.before =
        ["strace", "-f", "-o", trace.to_str().expect("UTF-8"), "-e", "trace=prctl,setns"].map(str::to_owned).to_vec();
    bundle.exec("true").ok();
    let text = fs::read_to_string(trace).expect("the trace");
    let hidden = text.find("PR_SET_DUMPABLE, SUID_DUMP_DISABLE").expect("it becomes undumpable");
    let entered = text.find("setns(").expect("it enters");
    assert!(hidden < entered, "{text}");
}

/// A program that was put in place of a hook's or the image's must not see the caller's environment.
#[test]
fn the_callers_environment_stays_outside() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    bundle.script("env").write();
    let output = bundle.command(&["run", &bundle.id]).env("CALLERS_SECRET", "x").output().expect("run");
    assert!(output.status.success() && !String::from_utf8_lossy(&output.stdout).contains("CALLERS_SECRET"));
}

/// The process inside must not be able to stop or confuse the runtime's own files.
#[test]
fn state_is_replaced_whole_and_not_for_others_to_write() {
    needs!(missing());
    use std::os::unix::fs::MetadataExt;
    let bundle = Bundle::ours();
    bundle.create().ok();
    let dir = bundle.path().join("state").join(&bundle.id);
    for name in ["state.json", "config.json"] {
        let found = fs::metadata(dir.join(name)).expect(name);
        assert_eq!(found.mode() & 0o022, 0, "{name} may be written by others");
    }
    let left: Vec<_> = fs::read_dir(&dir).expect("the directory").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(Path::new(&dir).join("exec.fifo").exists());
}

#[test]
fn a_state_directory_of_somebody_else_is_refused() {
    needs!(missing());
    let bundle = Bundle::ours();
    let state = bundle.path().join("state");
    fs::create_dir(&state).expect("a directory");
    std::os::unix::fs::chown(&state, Some(4242), None).expect("chown");
    assert!(bundle.create().refuses().contains("belongs to user 4242"));
    assert_eq!(fs::read_dir(&state).expect("the directory").count(), 0);
}
