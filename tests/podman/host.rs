//! A machine for one test, as far as namespaces give one: its own mounts, processes, /etc with a user and a range of ids, and a /dev/fuse
//! for everybody. It owns the scratch directory. Invariant: with it every process ends, and no mount outlives them.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use support::{lamina, machine};
use tempfile::TempDir;

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The root of the machine.
    Root,
    /// A user without privileges, with a name and 65536 subordinate ids.
    User,
}

/// The user's id, name and group in the /etc of the test.
const USER: u32 = 12_345;

/// Where the programs under test are: a home may be closed to other users.
pub const LAMINA_FS: &str = "/mnt/lamina-fs";
pub const LAMINA_OCI: &str = "/mnt/lamina-oci";

/// Only a hang reaches it.
const EXIT_TIMEOUT_MS: i32 = 1_200_000;

/// `$1` and `$2` are the programs under test. The last command waits for the test to end; the shell, which is process 1 there, takes the orphans.
const SET_UP: &str = r#"
    mount -t tmpfs -o mode=755 none /mnt
    mknod -m 666 /mnt/fuse c 10 229 && mount --bind /mnt/fuse /dev/fuse
    cp -a /etc /mnt/etc
    grep -v ':12345:' /etc/passwd >/mnt/etc/passwd; echo 'somebody:x:12345:12345::/nonexistent:/bin/sh' >>/mnt/etc/passwd
    echo 'somebody:x:12345:' >>/mnt/etc/group
    for file in subuid subgid; do echo somebody:300000:65536 >/mnt/etc/$file; done
    mount --bind /mnt/etc /etc
    touch /mnt/lamina-fs /mnt/lamina-oci
    mount --bind "$1" /mnt/lamina-fs; mount --bind "$2" /mnt/lamina-oci
    echo ready; cat"#;

/// The namespaces, alive as long as this is.
pub struct Host {
    home: TempDir,
    holder: Child,
}

impl Host {
    /// What it needs and this machine lacks.
    pub fn missing() -> Option<String> {
        let programs = ["unshare", "nsenter", "setpriv", "newuidmap", "podman", "buildah"];
        machine::root()
            .or_else(|| machine::filesystem("fuse"))
            .or_else(|| programs.into_iter().find_map(machine::program))
    }

    pub fn new() -> Host {
        let home = tempfile::Builder::new().prefix("lamina-podman-").tempdir().expect("a scratch directory");
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o711)).expect("chmod");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-euc", SET_UP, "sh"]);
        command.arg(lamina::binary()).arg(lamina::oci_binary()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = machine::start(&mut command);
        let mut line = String::new();
        let said = BufReader::new(holder.stdout.take().expect("a pipe")).read_line(&mut line);
        assert!(said.is_ok() && line == "ready\n", "the namespaces are not set up: {said:?} {line:?}");
        Host { home, holder }
    }

    /// The scratch directory, which everybody may pass through.
    pub fn path(&self) -> &Path {
        self.home.path()
    }

    /// A new directory in it that belongs to whoever calls.
    pub fn dir(&self, name: &str, who: Who) -> PathBuf {
        let dir = self.path().join(name);
        fs::create_dir(&dir).expect("mkdir");
        if who == Who::User {
            chown(&dir, Some(USER), Some(USER)).expect("chown");
        }
        dir
    }

    /// A cgroup of this test's own, for those who make one; removed with it.
    pub fn cgroup(&self, name: &str) -> String {
        format!("/lamina-podman-{}/{name}", self.holder.id())
    }

    /// A program in the namespaces, not started.
    pub fn command(&self, who: Who, program: &str) -> Command {
        let namespace = |name: &str| format!("/proc/{}/ns/{name}", self.holder.id());
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount={}", namespace("mnt"))).arg(format!("--pid={}", namespace("pid_for_children")));
        if who == Who::User {
            let id = USER.to_string();
            command.args(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--inh-caps=-all"]);
        }
        command.arg("--").arg(program).current_dir("/").stdin(Stdio::null());
        command
    }

    /// Waits until nothing but what holds the namespaces runs in them: servers and monitors end by themselves, a little later than what they served.
    #[track_caller]
    pub fn wait_for_all_to_end(&self) {
        while let Some((pid, words)) = self.others().into_iter().next() {
            // It may be gone by now.
            let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            assert!(ended(&process), "still running: {words}");
        }
    }

    /// Every process in the namespaces, zombies aside, but for the shell and the `cat` that hold them.
    fn others(&self) -> Vec<(Pid, String)> {
        let namespace = fs::read_link(format!("/proc/{}/ns/pid_for_children", self.holder.id())).expect("a namespace");
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc").filter_map(Result::ok) {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
            else {
                continue;
            };
            let inside = fs::read_link(entry.path().join("ns/pid")).is_ok_and(|own| own == namespace);
            let words = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default().replace('\0', " ");
            let holds = words.starts_with("sh -euc") || words.trim() == "cat";
            if inside && !holds && !words.is_empty() {
                found.push((pid, words));
            }
        }
        found
    }
}

fn ended(process: &OwnedFd) -> bool {
    let mut wait = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut wait, PollTimeout::try_from(EXIT_TIMEOUT_MS).expect("not negative")), Ok(1))
}

impl Drop for Host {
    fn drop(&mut self) {
        // With the shell, which is process 1, the kernel ends all the others.
        drop(self.holder.stdin.take());
        let ended = self.holder.wait();
        if !ended.as_ref().is_ok_and(|status| status.success()) {
            eprintln!("what held the namespaces: {ended:?}");
        }
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            remove_cgroups(&hierarchy.path().join(self.cgroup("").trim_matches('/')));
        }
    }
}

/// With what podman leaves inside, such as the one of its monitors.
fn remove_cgroups(path: &Path) {
    if !path.is_dir() {
        return;
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        remove_cgroups(&entry.path());
    }
    if let Err(error) = fs::remove_dir(path) {
        eprintln!("{}: {error}", path.display());
    }
}
