//! The callers that people use, each with storage, state and sockets of its own.

use crate::bundle::{Bundle, forget_cgroup, lamina_oci};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use support::person::Person;
use support::{machine, needs};
use tempfile::TempDir;

fn missing(program: &str) -> Option<String> {
    machine::root().or_else(|| machine::program("busybox")).or_else(|| machine::program(program))
}

fn scratch() -> TempDir {
    tempfile::Builder::new().prefix("lamina-caller-").tempdir().expect("a scratch directory")
}

/// Runs a program to its end and answers its standard output, trimmed; panics unless it answers `code`.
#[track_caller]
fn answers(code: i32, program: &str, words: &[&str]) -> String {
    let output: Output =
        Command::new(program).args(words).stdin(Stdio::null()).env_remove("XDG_RUNTIME_DIR").output().expect(program);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{program} {words:?}\n{out}\n{err}");
    out.trim().to_owned()
}

/// A shell that a caller starts at a terminal has one, and its answer comes back. The terminal stays: where its input ends at once, as with script(1) on
/// an empty one, Podman 4.3 loses what `run -it IMAGE tty` says in a fifth of the cases, with runc too.
#[track_caller]
fn shows_its_terminal(program: &str, words: &[String]) {
    let mut person = Person::sit_down(Command::new(program).args(words).env_remove("XDG_RUNTIME_DIR"));
    person.sees("# ");
    person.types("tty\r");
    person.sees("/dev/pts/0");
    person.sees("# ");
    person.types("exit 7\r");
    let status = person.child.wait().expect("a caller");
    assert_eq!(status.code(), Some(7), "{program} {words:?}");
}

/// A root filesystem as an archive: what images are made of here.
fn archive(dir: &Path) -> String {
    let bundle = Bundle::ours();
    let path = dir.join("root.tar").to_str().expect("UTF-8").to_owned();
    answers(0, "tar", &["-C", bundle.rootfs().to_str().expect("UTF-8"), "-cf", &path, "."]);
    path
}

/// Podman with storage of its own, emptied and unmounted on drop.
struct Podman {
    dir: TempDir,
    runtime: String,
}

impl Podman {
    fn new() -> Self {
        let podman = Podman { dir: scratch(), runtime: lamina_oci().program.to_str().expect("UTF-8").to_owned() };
        podman.answers(0, &["import", &archive(podman.dir.path()), "box"]);
        podman
    }

    fn words(&self) -> Vec<String> {
        let path = |name: &str| self.dir.path().join(name).to_str().expect("UTF-8").to_owned();
        let own =
            ["--root", &path("root"), "--runroot", &path("run"), "--tmpdir", &path("tmp"), "--runtime", &self.runtime];
        let host = ["--cgroup-manager", "cgroupfs", "--events-backend", "file"];
        own.iter().chain(&host).map(|word| (*word).to_owned()).collect()
    }

    #[track_caller]
    fn answers(&self, code: i32, words: &[&str]) -> String {
        let own = self.words();
        let all: Vec<&str> = own.iter().map(String::as_str).chain(words.iter().copied()).collect();
        answers(code, "podman", &all)
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let reset = Command::new("podman").args(self.words()).args(["system", "reset", "--force"]).output();
        if !reset.as_ref().is_ok_and(|output| output.status.success()) {
            eprintln!("podman system reset: {reset:?}");
        }
    }
}

/// Root has no CAP_SYS_RESOURCE on some machines, and podman's own limits are above what it may set there; no network is set up.
const LIMITS: [&str; 6] = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "--net", "none"];

#[test]
fn podman_runs_enters_pauses_and_stops() {
    needs!(missing("podman"));
    let podman = Podman::new();
    let run = |code, words: &[&str]| podman.answers(code, &[&["run"], &LIMITS[..], words].concat());
    assert_eq!(run(0, &["--rm", "box", "echo", "hello"]), "hello");
    run(9, &["--rm", "box", "sh", "-c", "exit 9"]);
    run(127, &["--rm", "box", "no-such-program"]);
    run(
        0,
        &[
            "-d",
            "--name",
            "one",
            "--pids-limit",
            "20",
            "box",
            "sh",
            "-c",
            "trap 'exit 0' TERM; echo logged; echo >/tmp/ready; sleep 100000 & wait",
        ],
    );
    // Before its trap is set, the first process of a pid namespace ignores the signal.
    let ready = "until [ -e /tmp/ready ]; do :; done; cat /proc/1/comm";
    assert_eq!(podman.answers(0, &["exec", "one", "sh", "-c", ready]), "sh");
    podman.answers(7, &["exec", "one", "sh", "-c", "exit 7"]);
    podman.answers(0, &["pause", "one"]);
    assert_eq!(podman.answers(0, &["inspect", "--format", "{{.State.Status}}", "one"]), "paused");
    podman.answers(0, &["unpause", "one"]);
    podman.answers(0, &["stop", "one"]);
    assert_eq!(podman.answers(0, &["logs", "one"]), "logged");
    assert_eq!(podman.answers(0, &["inspect", "--format", "{{.State.ExitCode}}", "one"]), "0");
    podman.answers(0, &["rm", "one"]);
    let mut interactive = podman.words();
    interactive
        .extend(["run", "--rm", "-it"].iter().chain(&LIMITS).chain(&["box", "sh"]).map(|word| (*word).to_owned()));
    shows_its_terminal("podman", &interactive);
}

#[test]
fn buildah_builds_with_run_steps() {
    needs!(missing("buildah"));
    let dir = scratch();
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    archive(dir.path());
    fs::write(
        dir.path().join("Containerfile"),
        "FROM scratch\nADD root.tar /\nRUN echo built > /built && id -u >> /built\nRUN cat /built\n",
    )
    .expect("a Containerfile");
    let (root, run) = (path("root"), path("run"));
    let own = ["--root", &root, "--runroot", &run];
    let runtime = lamina_oci().program.to_str().expect("UTF-8").to_owned();
    let limits = [
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=1000:1000",
        "--network",
        "none",
        "--cgroup-parent",
        "/lamina-buildah",
    ];
    let build = ["bud", "--isolation", "oci", "--runtime", &runtime, "--tag", "built"];
    let said = answers(0, "buildah", &[&own[..], &build, &limits, &[dir.path().to_str().expect("UTF-8")]].concat());
    assert!(said.contains("built\n0"), "{said}");
    answers(0, "buildah", &[&own[..], &["rmi", "--all", "--force"]].concat());
    forget_cgroup("lamina-buildah");
}

/// A containerd of the test's own.
struct Containerd {
    dir: TempDir,
    daemon: Child,
}

impl Containerd {
    fn start() -> Self {
        let dir = scratch();
        let at = dir.path().display().to_string();
        let config = format!(
            "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{at}/socket\"\n[ttrpc]\naddress = \"{at}/ttrpc\"\n"
        );
        fs::write(dir.path().join("config.toml"), config).expect("config.toml");
        let log = fs::File::create(dir.path().join("log")).expect("a log");
        let mut command = Command::new("containerd");
        command
            .arg("--config")
            .arg(dir.path().join("config.toml"))
            .stdout(Stdio::null())
            .stderr(log)
            .stdin(Stdio::null());
        let daemon = command.spawn().expect("containerd");
        let containerd = Containerd { dir, daemon };
        // It listens once the socket answers; it either does, or the test run's own limit ends this.
        while Command::new("ctr")
            .args(containerd.words())
            .arg("version")
            .output()
            .is_ok_and(|output| !output.status.success())
        {
            std::thread::yield_now();
        }
        containerd
    }

    fn words(&self) -> Vec<String> {
        let socket = self.dir.path().join("socket").to_str().expect("UTF-8").to_owned();
        ["--address", &socket, "--namespace", "lamina-test"].map(str::to_owned).to_vec()
    }

    #[track_caller]
    fn answers(&self, code: i32, words: &[&str]) -> String {
        let own = self.words();
        answers(code, "ctr", &own.iter().map(String::as_str).chain(words.iter().copied()).collect::<Vec<_>>())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for words in [
            ["task", "kill", "--signal", "KILL", "two"],
            ["task", "delete", "--force", "two", "two"],
            ["container", "delete", "two", "two", "two"],
        ] {
            // Whatever a failed test left; usually there is nothing.
            drop(Command::new("ctr").args(self.words()).args(words).output());
        }
        let pid = rustix::process::Pid::from_raw(self.daemon.id() as i32);
        let ended = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM));
        forget_cgroup("lamina-test");
        eprintln!("containerd: {ended:?}, {:?}", self.daemon.wait());
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.dir.path().join("log")).unwrap_or_default());
        }
    }
}

/// A hierarchy of version 1 that a mount left behind: containerd's shim looks up the mount of each one of /proc/PID/cgroup (cgroups(7)), and without
/// one of them has metrics of no container, whichever runtime made it.
fn hierarchy_without_mount() -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let mounted = |controller: &str| {
        let of = mounts.lines().filter_map(|line| line.split_once(" - cgroup "));
        of.filter_map(|(_, rest)| rest.rsplit(' ').next())
            .any(|options| options.split(',').any(|word| word == controller))
    };
    let own = fs::read_to_string("/proc/self/cgroup").expect("/proc/self/cgroup");
    let names = own.lines().filter_map(|line| line.split(':').nth(1)).flat_map(|names| names.split(','));
    names.filter(|name| !name.is_empty()).find(|name| !mounted(name)).map(str::to_owned)
}

#[test]
fn containerd_runs_enters_pauses_and_kills() {
    needs!(missing("containerd"), machine::program("ctr"), machine::program("podman"));
    let containerd = Containerd::start();
    let podman = Podman::new();
    let image = containerd.dir.path().join("box.tar").to_str().expect("UTF-8").to_owned();
    podman.answers(0, &["save", "--output", &image, "box"]);
    containerd.answers(0, &["image", "import", &image]);
    let runtime = lamina_oci().program.to_str().expect("UTF-8").to_owned();
    let with = ["--runc-binary", &runtime, "--runtime", "io.containerd.runc.v2"];
    let run = |code, before: &[&str], words: &[&str]| {
        containerd.answers(code, &[&["run"], before, &with, &["localhost/box:latest"], words].concat())
    };
    assert_eq!(run(0, &["--rm"], &["one", "echo", "hello"]), "hello");
    run(5, &["--rm"], &["one", "sh", "-c", "exit 5"]);
    run(1, &["--rm"], &["one", "no-such-program"]);
    run(0, &["--detach"], &["two", "sleep", "100000"]);
    assert_eq!(containerd.answers(0, &["task", "exec", "--exec-id", "e1", "two", "cat", "/proc/1/comm"]), "sleep");
    let mut interactive = containerd.words();
    interactive.extend(["task", "exec", "--tty", "--exec-id", "e2", "two", "sh"].map(str::to_owned));
    shows_its_terminal("ctr", &interactive);
    containerd.answers(0, &["task", "pause", "two"]);
    assert!(containerd.answers(0, &["task", "list"]).contains("PAUSED"));
    containerd.answers(0, &["task", "resume", "two"]);
    match hierarchy_without_mount() {
        None => assert!(containerd.answers(0, &["task", "metrics", "two"]).contains("pids.current")),
        Some(hierarchy) => {
            eprintln!("no metrics asked for: {hierarchy} has no mount, and containerd's shim wants all of them")
        }
    }
    assert_eq!(containerd.answers(0, &["task", "ps", "two"]).lines().count(), 2);
    containerd.answers(0, &["task", "kill", "--signal", "KILL", "two"]);
    while !containerd.answers(0, &["task", "list"]).contains("STOPPED") {
        std::thread::yield_now();
    }
    containerd.answers(0, &["task", "delete", "two"]);
    containerd.answers(0, &["container", "delete", "two"]);
    assert!(containerd.answers(0, &["task", "list"]).lines().count() <= 1);
}
