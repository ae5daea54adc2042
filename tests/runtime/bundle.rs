//! A bundle and its containers: a busybox root filesystem, a config.json that tests change, and the runtime under test. Invariant: on drop, panic or
//! not, the containers are deleted and the directory with them.

#![allow(dead_code, reason = "compare-runtimes uses a part")]

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use support::said::Said;
use support::{lamina, machine};
use tempfile::TempDir;

/// A runtime with runc's command line.
#[derive(Debug, Clone)]
pub struct Runtime {
    pub name: &'static str,
    pub program: PathBuf,
}

/// The runtime under test.
pub fn lamina_oci() -> Runtime {
    Runtime { name: "lamina-oci", program: lamina::oci_binary().to_path_buf() }
}

/// Programs of busybox that tests use inside.
const APPLETS: [&str; 40] = [
    "awk", "cat", "chmod", "cut", "dd", "echo", "env", "false", "grep", "head", "hostname", "id", "kill", "ln", "ls",
    "mkdir", "mkfifo", "mknod", "mount", "mv", "nproc", "ps", "pwd", "readlink", "rm", "sed", "seq", "sh", "sleep",
    "stat", "stty", "tail", "test", "touch", "tr", "true", "tty", "umount", "vi", "wc",
];

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A bundle for one container at a time, or a few.
#[derive(Debug)]
pub struct Bundle {
    pub dir: TempDir,
    pub config: Value,
    pub runtime: Runtime,
    pub id: String,
    /// Words before the runtime: another user, a tracer.
    pub before: Vec<String>,
}

impl Bundle {
    pub fn new(runtime: &Runtime) -> Self {
        let dir = tempfile::Builder::new().prefix("lamina-oci-").tempdir().expect("a scratch directory");
        let root = dir.path().join("rootfs");
        for name in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(root.join(name)).expect("a directory of the root filesystem");
        }
        let busybox = machine::find_program("busybox").expect("busybox is installed");
        copy(&busybox, &root.join("bin/busybox"));
        for name in APPLETS {
            symlink("busybox", root.join("bin").join(name)).expect("a link to busybox");
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
            .expect("passwd");
        chmod(dir.path(), 0o755);
        let id = format!("lamina-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Bundle { dir, config: config(), runtime: runtime.clone(), id, before: Vec::new() }
    }

    pub fn ours() -> Self {
        Self::new(&lamina_oci())
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn rootfs(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    /// Changes config.json at a place such as `/process/cwd`, made if it is missing.
    pub fn set(&mut self, place: &str, value: Value) -> &mut Self {
        let mut at = &mut self.config;
        for word in place.trim_start_matches('/').split('/') {
            at = &mut at[word];
        }
        *at = value;
        self
    }

    /// Adds to a list of config.json.
    pub fn push(&mut self, place: &str, value: Value) -> &mut Self {
        match self.config.pointer_mut(place) {
            Some(Value::Array(list)) => list.push(value),
            _ => drop(self.set(place, json!([value]))),
        }
        self
    }

    /// Leaves out a namespace.
    pub fn without_namespace(&mut self, kind: &str) -> &mut Self {
        let list = self.config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        list.retain(|namespace| namespace["type"] != kind);
        self
    }

    pub fn script(&mut self, script: &str) -> &mut Self {
        self.set("/process/args", json!(["sh", "-c", script]))
    }

    pub fn write(&self) {
        fs::write(self.path().join("config.json"), self.config.to_string()).expect("config.json is written");
    }

    /// The runtime with these words, about this state directory.
    pub fn command(&self, words: &[&str]) -> Command {
        let program = self.runtime.program.to_str().expect("UTF-8").to_owned();
        let mut line: Vec<String> = self.before.clone();
        line.push(program);
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).arg("--root").arg(self.path().join("state")).args(words).current_dir(self.path());
        command.stdin(Stdio::null());
        command
    }

    /// Runs the runtime to its end.
    pub fn verb(&self, words: &[&str]) -> Said {
        Said::of(&mut self.command(words))
    }

    pub fn create(&self) -> Said {
        self.write();
        self.verb(&["create", "--bundle", self.path().to_str().expect("UTF-8"), &self.id])
    }

    pub fn start(&self) -> Said {
        self.verb(&["start", &self.id])
    }

    pub fn run(&self) -> Said {
        self.write();
        self.verb(&["run", "--bundle", self.path().to_str().expect("UTF-8"), &self.id])
    }

    /// Runs a script in a container of its own and answers what it printed.
    #[track_caller]
    pub fn sh(&mut self, script: &str) -> String {
        self.script(script);
        self.run().ok()
    }

    /// A container that runs until it is killed.
    #[track_caller]
    pub fn running(&mut self) -> &mut Self {
        self.set("/process/args", json!(["sleep", "100000"]));
        self.create().ok();
        self.start().ok();
        self
    }

    #[track_caller]
    pub fn exec(&self, script: &str) -> Said {
        self.verb(&["exec", &self.id, "sh", "-c", script])
    }

    #[track_caller]
    pub fn state(&self) -> Value {
        serde_json::from_str(&self.verb(&["state", &self.id]).ok()).expect("state is JSON")
    }

    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap_or_default().to_owned()
    }

    pub fn pid(&self) -> i32 {
        self.state()["pid"].as_i64().unwrap_or_default() as i32
    }

    /// Waits for init's end, on its descriptor.
    pub fn await_end(&self) {
        let Some(pid) = rustix::process::Pid::from_raw(self.pid()) else { return };
        await_process(pid);
    }

    pub fn cgroup_dirs(&self) -> Vec<PathBuf> {
        find_cgroups(&self.id)
    }
}

/// Waits until a process has ended.
pub fn await_process(pid: rustix::process::Pid) {
    match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        Ok(process) => {
            let mut polled = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut polled, None).expect("wait for the end of a process");
        }
        Err(errno) => assert_eq!(errno, rustix::io::Errno::SRCH),
    }
}

/// Every cgroup directory with that word in its name.
pub fn find_cgroups(word: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for hierarchy in fs::read_dir("/sys/fs/cgroup").expect("the cgroups").flatten() {
        let below = fs::read_dir(hierarchy.path()).into_iter().flatten().flatten();
        found.extend(below.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains(word)));
    }
    found
}

/// Removes a cgroup that callers make above those of containers and leave. Somebody else may be using one of that name: then it stays.
pub fn forget_cgroup(name: &str) {
    for hierarchy in fs::read_dir("/sys/fs/cgroup").expect("the cgroups").flatten() {
        drop(fs::remove_dir(hierarchy.path().join(name)));
    }
}

/// Copies a program, by another process: a descriptor of ours that is open for writing could be inherited by a program that another test
/// starts just then, and what is open for writing cannot be executed.
pub fn copy(from: &Path, to: &Path) {
    machine::run("cp", &[from, to]);
}

pub fn chmod(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let ended = self.verb(&["delete", "--force", &self.id]);
        if ended.code != Some(0) {
            eprintln!("{}: delete --force {}: {}", self.runtime.name, self.id, ended.err);
        }
    }
}

fn config() -> Value {
    let caps = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["true"],
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs"},
        "hostname": "tested",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]}
        ],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"}],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/acpi"],
            "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}
