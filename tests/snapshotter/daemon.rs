//! A running `lamina-snapshotter serve`, and a client of its socket. Owns starting, killing and clearing up. Invariant: after drop no
//! process, mount or directory of its store is left.

use std::fs::{File, Permissions};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lamina_snapshotter::service::proto::services::snapshots::v1::{self as api, snapshots_client::SnapshotsClient};
use lamina_snapshotter::service::proto::types::Mount;
use nix::mount::{MntFlags, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::PidfdFlags;
use support::{lamina, machine};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// Long enough that only a hang reaches it.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// The plugin name that the tests speak as.
pub const PLUGIN: &str = "lamina";

/// A daemon with a store of its own.
pub struct Daemon {
    // Removed last.
    home: TempDir,
    root: PathBuf,
    child: Option<Child>,
    /// Opened by us and passed on, as systemd does.
    listener: Option<UnixListener>,
    /// Run as this user and group instead of root.
    user: Option<u32>,
    runtime: Runtime,
}

impl Daemon {
    /// On a new store in a temporary directory.
    pub fn start() -> Daemon {
        let home = tempfile::Builder::new().prefix("lamina-snapshotter-").tempdir().expect("temporary directory");
        let root = home.path().join("store");
        Daemon::start_at(home, root)
    }

    /// With a committed snapshot `base` that holds one file of that name.
    pub fn with_base() -> Daemon {
        let daemon = Daemon::start();
        daemon.client(PLUGIN).base("base");
        daemon
    }

    /// With an active snapshot `container` on `base`; answers where it is mounted, too.
    pub fn with_container() -> (Daemon, PathBuf) {
        let daemon = Daemon::with_base();
        let mounted = source(&daemon.client(PLUGIN).prepare("container", "base").expect("prepare"));
        (daemon, mounted)
    }

    /// As a user without any privilege, in a directory of theirs.
    pub fn start_as(user: u32) -> Daemon {
        let home = tempfile::Builder::new().prefix("lamina-snapshotter-").tempdir().expect("temporary directory");
        std::os::unix::fs::chown(home.path(), Some(user), Some(user)).expect("chown");
        let root = home.path().join("store");
        Daemon::begin(home, root, Some(user))
    }

    /// On a store at `root`.
    pub fn start_at(home: TempDir, root: PathBuf) -> Daemon {
        Daemon::begin(home, root, None)
    }

    fn begin(home: TempDir, root: PathBuf, user: Option<u32>) -> Daemon {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let mut daemon = Daemon { home, root, child: None, listener: None, user, runtime: runtime.expect("tokio") };
        daemon.restart();
        daemon
    }

    /// From now on we hold the socket, and pass it to each daemon that is started.
    pub fn hold_socket(&mut self) {
        self.terminate();
        self.listener = Some(UnixListener::bind(self.socket()).expect("bind"));
        self.restart();
    }

    /// A directory beside it, for whatever else the test needs.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.home.path().join("socket")
    }

    /// The command, ready to be run.
    pub fn command(&self, verb: &str) -> Command {
        let mut command = match self.user {
            None => Command::new(lamina::snapshotter_binary()),
            Some(user) => {
                let id = user.to_string();
                let mut command = Command::new("setpriv");
                command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--inh-caps=-all"]);
                command.arg(lamina::snapshotter_binary());
                command
            }
        };
        command.arg(verb).arg("--root").arg(&self.root);
        command
    }

    /// The servers' program, where whoever runs the daemon reaches it: a checkout below a home directory is not for other users.
    fn server_program(&self) -> PathBuf {
        if self.user.is_none() {
            return lamina::binary().to_owned();
        }
        let copy = self.home.path().join("lamina-fs");
        if !copy.exists() {
            std::fs::copy(lamina::binary(), &copy).expect("copy lamina-fs");
        }
        copy
    }

    /// Starts it again after it was killed, and waits until it says that it is ready.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let ready = self.home.path().join("ready");
        drop(std::fs::remove_file(&ready));
        let manager = UnixDatagram::bind(&ready).expect("bind");
        std::fs::set_permissions(&ready, Permissions::from_mode(0o777)).expect("chmod");
        manager.set_read_timeout(Some(READY_TIMEOUT)).expect("timeout");
        let log = File::options().create(true).append(true).open(self.home.path().join("log")).expect("log");
        let mut command = self.command("serve");
        if let Some(listener) = &self.listener {
            // Descriptor 3, and LISTEN_PID the number that the program itself will have.
            let script = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";
            let direct = std::mem::replace(&mut command, Command::new("sh"));
            command.args(["-c", script, "sh"]).arg(direct.get_program()).args(direct.get_args());
            command.stdin(OwnedFd::from(listener.try_clone().expect("dup")));
        } else {
            command.arg("--socket").arg(self.socket()).stdin(Stdio::null());
        }
        command.arg("--lamina-fs").arg(self.server_program());
        command.env("NOTIFY_SOCKET", &ready).env("RUST_LOG", "info").stderr(log);
        self.child = Some(command.spawn().expect("start lamina-snapshotter"));
        let mut state = [0; 64];
        let length = manager.recv(&mut state).unwrap_or_else(|error| panic!("not ready: {error}\n{}", self.log()));
        assert_eq!(&state[..length], b"READY=1");
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.end(Signal::SIGKILL);
    }

    /// SIGTERM.
    pub fn terminate(&mut self) {
        let status = self.end(Signal::SIGTERM);
        assert!(status, "it ends well\n{}", self.log());
    }

    fn end(&mut self, signal: Signal) -> bool {
        let mut child = self.child.take().expect("it runs");
        kill(Pid::from_raw(child.id().cast_signed()), signal).expect("kill");
        child.wait().expect("wait").success()
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.as_ref().expect("it runs").id().cast_signed())
    }

    /// Its store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// The processes that serve mounts of this store.
    pub fn servers(&self) -> Vec<i32> {
        let mounts = self.root.join("mounts").into_os_string().into_encoded_bytes();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("/proc").filter_map(Result::ok) {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0);
            if words.next() == Some(b"lamina-fs") && words.any(|word| word.starts_with(&mounts)) {
                found.push(pid);
            }
        }
        found
    }

    /// What is mounted below the store.
    pub fn mountpoints(&self) -> Vec<PathBuf> {
        let table = std::fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
        let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        points.filter(|point| point.starts_with(self.root.join("mounts"))).collect()
    }

    /// `lamina-snapshotter fsck`, while no daemon runs.
    #[track_caller]
    pub fn check(&self) {
        let output = self.command("fsck").output().expect("run fsck");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "fsck: {text}\n{}", self.log());
    }

    /// A client with a connection of its own.
    pub fn client(&self, plugin: &str) -> Client<'_> {
        let endpoint = Endpoint::from_shared(format!("unix://{}", self.socket().display())).expect("address");
        let channel = self.runtime.block_on(async { endpoint.connect_lazy() });
        Client { runtime: &self.runtime, snapshots: SnapshotsClient::new(channel), plugin: plugin.to_owned() }
    }

    /// Removes every snapshot of a plugin, children first.
    pub fn remove_all(&self, plugin: &str) {
        let mut client = self.client(plugin);
        loop {
            let left = client.list(&[]).expect("list");
            if left.is_empty() {
                return;
            }
            let leaves = left.iter().filter(|info| !left.iter().any(|other| other.parent == info.name));
            leaves
                .for_each(|info| client.remove(&info.name).unwrap_or_else(|status| panic!("{}: {status}", info.name)));
        }
    }

    /// Removes everything, and panics if anything is left.
    #[track_caller]
    pub fn clear(&self) {
        self.remove_all(PLUGIN);
        self.assert_empty();
    }

    /// Nothing is left: no process, no mount, no directory.
    #[track_caller]
    pub fn assert_empty(&self) {
        assert_eq!(self.mountpoints(), Vec::<PathBuf>::new());
        assert_eq!(self.servers(), Vec::<i32>::new());
        for directory in ["snapshots", "mounts", "ingest"] {
            let names: Vec<_> = std::fs::read_dir(self.root.join(directory)).expect("store").collect();
            assert!(names.is_empty(), "{directory}: {names:?}");
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.end(Signal::SIGKILL);
        }
        for point in self.mountpoints() {
            if let Err(error) = umount2(&point, MntFlags::MNT_DETACH) {
                eprintln!("umount {}: {error}", point.display());
            }
        }
        // Only those of this very store, by its path.
        for pid in self.servers() {
            if let Err(errno) = kill(Pid::from_raw(pid), Signal::SIGKILL) {
                eprintln!("server {pid} was gone: {errno}");
            }
        }
        if std::thread::panicking() {
            eprintln!("log of the daemon:\n{}", self.log());
        }
    }
}

/// A client of the socket.
pub struct Client<'a> {
    runtime: &'a Runtime,
    snapshots: SnapshotsClient<Channel>,
    plugin: String,
}

impl Client<'_> {
    pub fn prepare(&mut self, key: &str, parent: &str) -> Result<Vec<Mount>, Status> {
        self.prepare_with(key, parent, &[])
    }

    pub fn prepare_with(&mut self, key: &str, parent: &str, labels: &[(&str, &str)]) -> Result<Vec<Mount>, Status> {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let request = api::PrepareSnapshotRequest {
            snapshotter: self.plugin.clone(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels,
        };
        let call = self.snapshots.prepare(request);
        self.runtime.block_on(call).map(|response| response.into_inner().mounts)
    }

    pub fn view(&mut self, key: &str, parent: &str) -> Result<Vec<Mount>, Status> {
        let request = api::ViewSnapshotRequest {
            snapshotter: self.plugin.clone(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            ..Default::default()
        };
        let call = self.snapshots.view(request);
        self.runtime.block_on(call).map(|response| response.into_inner().mounts)
    }

    pub fn mounts(&mut self, key: &str) -> Result<Vec<Mount>, Status> {
        let request = api::MountsRequest { snapshotter: self.plugin.clone(), key: key.to_owned() };
        let call = self.snapshots.mounts(request);
        self.runtime.block_on(call).map(|response| response.into_inner().mounts)
    }

    pub fn commit(&mut self, name: &str, key: &str) -> Result<(), Status> {
        self.commit_on(name, key, "")
    }

    pub fn commit_on(&mut self, name: &str, key: &str, parent: &str) -> Result<(), Status> {
        let request = api::CommitSnapshotRequest {
            snapshotter: self.plugin.clone(),
            name: name.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            ..Default::default()
        };
        let call = self.snapshots.commit(request);
        self.runtime.block_on(call).map(|response| response.into_inner())
    }

    pub fn remove(&mut self, key: &str) -> Result<(), Status> {
        let request = api::RemoveSnapshotRequest { snapshotter: self.plugin.clone(), key: key.to_owned() };
        let call = self.snapshots.remove(request);
        self.runtime.block_on(call).map(|response| response.into_inner())
    }

    pub fn usage(&mut self, key: &str) -> Result<api::UsageResponse, Status> {
        let request = api::UsageRequest { snapshotter: self.plugin.clone(), key: key.to_owned() };
        let call = self.snapshots.usage(request);
        self.runtime.block_on(call).map(|response| response.into_inner())
    }

    pub fn list(&mut self, filters: &[&str]) -> Result<Vec<api::Info>, Status> {
        let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
        let request = api::ListSnapshotsRequest { snapshotter: self.plugin.clone(), filters };
        let snapshots = &mut self.snapshots;
        self.runtime.block_on(async {
            let mut stream = snapshots.list(request).await?.into_inner();
            let mut found = Vec::new();
            while let Some(block) = stream.message().await? {
                found.extend(block.info);
            }
            Ok(found)
        })
    }

    /// A committed snapshot with one file, `NAME` holding its own name.
    pub fn base(&mut self, name: &str) {
        let key = format!("base-{name}");
        let mounts = self.prepare(&key, "").expect("prepare");
        std::fs::write(source(&mounts).join(name), name).expect("write");
        self.commit(name, &key).expect("commit");
    }
}

/// Kills a server, and waits until it is gone: until then it answers, and is rightly taken for alive.
pub fn kill_server(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a process");
    // It may be ending by itself.
    let Ok(server) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return };
    let killed = rustix::process::pidfd_send_signal(&server, rustix::process::Signal::KILL);
    assert!(matches!(killed, Ok(()) | Err(rustix::io::Errno::SRCH)), "{killed:?}");
    let mut wait = [PollFd::new(server.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut wait, PollTimeout::from(60_000_u16)), Ok(1));
}

/// Where the answer of Prepare, View or Mounts is, which must be one bind.
#[track_caller]
pub fn source(mounts: &[Mount]) -> PathBuf {
    assert_eq!(mounts.len(), 1, "{mounts:?}");
    assert_eq!(mounts[0].r#type, "bind", "{mounts:?}");
    PathBuf::from(&mounts[0].source)
}

/// The code of a refusal.
pub fn code<T>(answer: Result<T, Status>) -> Option<Code> {
    answer.err().map(|status| status.code())
}

/// What these tests need and this machine lacks.
pub fn missing() -> Option<String> {
    machine::mounts()
}
