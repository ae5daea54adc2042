//! Debian's containerd, with a configuration, root, state and sockets of its own, runs containers of a Debian image on the snapshotter.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};
use support::{machine, needs, skip};

use crate::daemon::{self, Daemon, PLUGIN};
use crate::oci;

const READY_TIMEOUT: Duration = Duration::from_secs(120);

const NAMESPACE: &str = "lamina-test";

/// A containerd below a directory of its own.
struct Containerd {
    home: PathBuf,
    child: Option<Child>,
}

impl Containerd {
    fn start(daemon: &Daemon) -> Containerd {
        let home = daemon.home().join("containerd");
        fs::create_dir(&home).expect("mkdir");
        let mut config = daemon.command("config");
        config.args(["--containerd", "1.6", "--socket"]).arg(daemon.socket());
        let plugin = String::from_utf8(config.output().expect("run config").stdout).expect("UTF-8");
        let at = home.display();
        let own = format!(
            "root = \"{at}/root\"\nstate = \"{at}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n{plugin}\n\
             [grpc]\n  address = \"{at}/sock\"\n[ttrpc]\n  address = \"{at}/ttrpc\"\n"
        );
        fs::write(home.join("config.toml"), own).expect("write");
        let mut containerd = Containerd { home, child: None };
        containerd.restart();
        containerd
    }

    fn restart(&mut self) {
        let ready = self.home.join("ready");
        drop(fs::remove_file(&ready));
        let manager = UnixDatagram::bind(&ready).expect("bind");
        manager.set_read_timeout(Some(READY_TIMEOUT)).expect("timeout");
        let log = File::options().create(true).append(true).open(self.home.join("log")).expect("log");
        let mut command = Command::new("containerd");
        command.arg("--config").arg(self.home.join("config.toml")).env("NOTIFY_SOCKET", &ready);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("start containerd"));
        let mut state = [0; 64];
        let length = manager.recv(&mut state).unwrap_or_else(|error| panic!("not ready: {error}\n{}", self.log()));
        assert_eq!(&state[..length], b"READY=1");
    }

    fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).expect("kill");
        child.wait().expect("wait");
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("-a").arg(self.home.join("sock")).args(["-n", NAMESPACE]).args(words);
        command
    }

    #[track_caller]
    fn ctr(&self, words: &[&str]) -> Vec<u8> {
        // A file, not a pipe: a shim that keeps it open must not make us wait for its end.
        let (out, err) = (self.home.join("stdout"), self.home.join("stderr"));
        let mut command = self.command(words);
        command
            .stdin(Stdio::null())
            .stdout(File::create(&out).expect("create"))
            .stderr(File::create(&err).expect("create"));
        let status = command.status().expect("run ctr");
        let text = fs::read_to_string(&err).expect("read");
        assert!(status.success(), "ctr {}: {status}\n{text}\n{}", words.join(" "), self.log());
        fs::read(&out).expect("read")
    }

    /// As text.
    #[track_caller]
    fn text(&self, words: &[&str]) -> String {
        String::from_utf8(self.ctr(words)).expect("UTF-8")
    }

    /// The processes that name our directory on their command line: shims, whatever they started is in their hands.
    fn shims(&self) -> Vec<Pid> {
        let home = self.home.to_string_lossy().into_owned();
        let pids = fs::read_dir("/proc")
            .expect("read /proc")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let ours = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.starts_with(b"/usr/bin/containerd-shim") && String::from_utf8_lossy(&line).contains(&home)
        };
        pids.filter(ours).map(Pid::from_raw).collect()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if self.child.is_some() {
            if std::thread::panicking() {
                eprintln!("log of containerd:\n{}", self.log());
            }
            drop(self.command(&["task", "kill", "-s", "KILL", "writer"]).output());
            self.stop();
        }
        for shim in self.shims() {
            if let Err(errno) = kill(shim, Signal::SIGKILL) {
                eprintln!("shim {shim} was gone: {errno}");
            }
        }
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        let mut points: Vec<&str> = table.lines().filter_map(|line| line.split(' ').nth(4)).collect();
        points.retain(|point| Path::new(point).starts_with(&self.home));
        for point in points.iter().rev() {
            if let Err(errno) = umount2(*point, MntFlags::MNT_DETACH) {
                eprintln!("umount {point}: {errno}");
            }
        }
    }
}

/// What lies at the rootfs of a snapshot, by a bind of our own.
fn read_below(mountpoint: &Path, name: &str) -> String {
    fs::read_to_string(mountpoint.join(name)).unwrap_or_default()
}

/// Waits until a container has written more lines to `/log` of its mount than `than`; answers how many. `process` is the container's.
fn lines_beyond(mountpoint: &Path, process: &OwnedFd, than: usize) -> usize {
    loop {
        let lines = read_below(mountpoint, "log").lines().count();
        if lines > than {
            return lines;
        }
        assert_eq!(read_below(mountpoint, "failed"), "", "a write failed");
        let mut ended = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut ended, PollTimeout::ZERO), Ok(0), "the container ended");
        std::thread::yield_now();
    }
}

/// The mount of the snapshot with that key, by its record in the listing and the servers' directory.
fn mountpoint(daemon: &Daemon, key: &str) -> PathBuf {
    let mut client = daemon.client(PLUGIN);
    let found = client.list(&[]).expect("list").into_iter().find(|info| info.name.ends_with(&format!("/{key}")));
    daemon::source(&client.mounts(&found.unwrap_or_else(|| panic!("no snapshot {key}")).name).expect("mounts"))
}

#[test]
fn containerd_runs_commits_and_removes_while_everything_is_killed() {
    let programs = ["containerd", "ctr", "runc"].into_iter().find_map(machine::program);
    needs!(daemon::missing(), programs, oci::missing());
    let mut daemon = Daemon::start();
    let Some(archive) = oci::archive(daemon.home()) else { skip!("no Debian packages can be fetched here") };
    let mut containerd = Containerd::start(&daemon);
    containerd.ctr(&["images", "import", "--snapshotter", PLUGIN, archive.to_str().unwrap()]);
    let layers = daemon.client(PLUGIN).list(&["kind==committed"]).unwrap();
    assert_eq!(layers.len(), 3);

    // Written, removed and changed in a container; seen by containerd's own diff of two of our mounts.
    let script = "set -e; cat /etc/motd /opt/tool/new; test ! -e /etc/issue.net; test ! -e /opt/tool/run
                  echo own >/own; rm /etc/debian_version; echo changed >>/etc/passwd; mkdir /d; ln /own /d/link";
    let out = containerd.text(&["run", "--snapshotter", PLUGIN, oci::NAME, "first", "sh", "-c", script]);
    assert_eq!(out, "three\nnew\n");
    fs::write(daemon.home().join("diff"), containerd.ctr(&["snapshots", "--snapshotter", PLUGIN, "diff", "first"]))
        .unwrap();
    let listed = machine::shell(&format!(
        "cd {}; (gzip -dc <diff 2>/dev/null || cat diff) | tar -tf - | sort",
        daemon.home().display()
    ));
    for name in ["own", "etc/.wh.debian_version", "etc/passwd", "d/link"] {
        assert!(listed.lines().any(|line| line == name), "{name}:\n{listed}");
    }
    containerd.ctr(&["snapshots", "--snapshotter", PLUGIN, "commit", "committed", "first"]);
    containerd.ctr(&["snapshots", "--snapshotter", PLUGIN, "prepare", "second", "committed"]);
    let rootfs = daemon.home().join("rootfs");
    fs::create_dir(&rootfs).unwrap();
    let second = mountpoint(&daemon, "second");
    mount(Some(&second), &rootfs, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>).unwrap();
    let check = "cat /own /d/link; tail -n 1 /etc/passwd; test ! -e /etc/debian_version";
    let run = ["run", "--rm", "--rootfs", rootfs.to_str().unwrap(), "again", "/bin/sh", "-c", check];
    let out = containerd.command(&run).output().unwrap();
    umount2(&rootfs, MntFlags::MNT_DETACH).unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "own\nown\nchanged\n", "{}", String::from_utf8_lossy(&out.stderr));

    // A hundred times a second, while daemon and containerd die and come back.
    let script = "i=0; while :; do echo $i >>/log || echo $i >>/failed; i=$((i+1)); sleep 0.01; done";
    containerd.ctr(&["run", "-d", "--snapshotter", PLUGIN, oci::NAME, "writer", "sh", "-c", script]);
    let log = mountpoint(&daemon, "writer");
    let tasks = containerd.text(&["task", "ls"]);
    let words =
        tasks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|words| words[0] == "writer");
    let number = words.and_then(|words| rustix::process::Pid::from_raw(words[1].parse().ok()?)).expect("a process");
    let writer = pidfd_open(number, PidfdFlags::empty()).expect("it lives");
    let mut lines = lines_beyond(&log, &writer, 10);
    for turn in 0..3 {
        daemon.kill();
        lines = lines_beyond(&log, &writer, lines + 50);
        daemon.restart();
        lines = lines_beyond(&log, &writer, lines + 50);
        if turn == 1 {
            daemon.terminate();
            daemon.restart();
            containerd.stop();
            lines = lines_beyond(&log, &writer, lines + 50);
            containerd.restart();
        }
    }
    let tasks = containerd.text(&["task", "ls"]);
    assert!(tasks.lines().any(|line| line.starts_with("writer") && line.contains("RUNNING")), "{tasks}");
    containerd.ctr(&["task", "delete", "--force", "writer"]);
    let text = read_below(&log, "log");
    let expected: String = (0..text.lines().count()).map(|line| format!("{line}\n")).collect();
    assert_eq!(read_below(&log, "failed"), "");
    assert!(text == expected, "a line is missing, doubled or cut");
    println!("{} lines while the daemon died four times and containerd once", text.lines().count());

    containerd.ctr(&["containers", "rm", "first", "writer"]);
    containerd.ctr(&["snapshots", "--snapshotter", PLUGIN, "rm", "second"]);
    containerd.ctr(&["snapshots", "--snapshotter", PLUGIN, "rm", "committed"]);
    containerd.ctr(&["images", "rm", "--sync", oci::NAME]);
    let left = daemon.client(PLUGIN).list(&[]).unwrap();
    assert!(left.is_empty(), "{left:?}");
    daemon.assert_empty();
    assert_eq!(containerd.shims(), []);
}
