//! A mounted Lamina: the real binary, started as a user starts it. It owns finding the binary, waiting for the server's end and unmounting.
//! Invariant: after drop, or after `unmount`, the server is gone; no wait is a sleep, each is on the server's pidfd.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use nix::mount::{MntFlags, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use rustix::process::{Pid, PidfdFlags};

use crate::layers::Layers;
use crate::{growth, machine};

/// Half an hour, so that only a hang reaches it: a server that ends brings its upper layer to the disk with syncfs(2), which takes all that the
/// neighbours have written to that filesystem along.
const EXIT_TIMEOUT_MS: i32 = 1_800_000;

/// The path of `lamina-fs`: from LAMINA_FS, else next to the test binaries, else built now.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("lamina-fs", "lamina-fs", "LAMINA_FS"))
}

/// The path of `lamina-snapshotter`, found in the same way through LAMINA_SNAPSHOTTER.
pub fn snapshotter_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("lamina-snapshotter", "lamina-snapshotter", "LAMINA_SNAPSHOTTER"))
}

/// The path of `lamina-oci`, found in the same way through LAMINA_OCI.
pub fn oci_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("lamina-runtime", "lamina-oci", "LAMINA_OCI"))
}

/// The path of `lamina`, found in the same way through LAMINA.
pub fn front_end() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("lamina-runtime", "lamina", "LAMINA"))
}

/// A binary of a package: beside the tests, which lie in `target/PROFILE/deps`, or beside a program of ours in `target/PROFILE`.
fn built(package: &str, binary: &str, variable: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let own = std::env::current_exe().expect("path of the test binary");
    let mut profiles = own.ancestors().skip(1);
    let profile = profiles.find(|dir| dir.file_name() != Some("deps".as_ref())).expect("target/PROFILE");
    let path = profile.join(binary);
    if !path.exists() {
        let target = profile.parent().expect("target directory");
        let release = (profile.file_name() == Some("release".as_ref())).then_some("--release");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "-p", package, "--target-dir"]).arg(target).args(release);
        let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("run cargo");
        assert!(status.success(), "cargo build -p {package}: {status}");
    }
    path
}

/// Where the third-party suites are: in LAMINA_SUITES, else where `make suites-deps` puts them.
pub fn suites_dir() -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/suites/bin");
    std::env::var_os("LAMINA_SUITES").map_or_else(built, PathBuf::from)
}

/// How to start a Lamina; nothing happens before [`Lamina::mount`] or [`Lamina::run`].
#[derive(Debug, Clone)]
pub struct Lamina {
    program: Vec<PathBuf>,
    options: Vec<String>,
    mountpoint: PathBuf,
    environment: Vec<(String, String)>,
}

/// What a finished start answered.
#[derive(Debug)]
pub struct Finished {
    /// Exit status of the command.
    pub status: ExitStatus,
    /// Everything on its standard error.
    pub stderr: String,
}

impl Lamina {
    /// On all of `layers`, writable.
    pub fn on(layers: &Layers) -> Lamina {
        Lamina::with_options(&layers.options(), &layers.merged)
    }

    /// On the lowers of `layers` only.
    pub fn read_only(layers: &Layers) -> Lamina {
        Lamina::with_options(&layers.lower_option(), &layers.merged)
    }

    /// With this option string.
    pub fn with_options(options: &str, mountpoint: &Path) -> Lamina {
        let program = vec![binary().to_path_buf()];
        Lamina { program, options: vec![options.into()], mountpoint: mountpoint.into(), environment: Vec::new() }
    }

    /// One more `-o`.
    pub fn option(mut self, option: &str) -> Lamina {
        self.options.push(option.into());
        self
    }

    /// One environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Lamina {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Starts it through another program, such as `prlimit --nofile=64 --`.
    pub fn through(mut self, words: &[&str]) -> Lamina {
        self.program.splice(0..0, words.iter().map(PathBuf::from));
        self
    }

    /// Ends a mount that a test did not expect to succeed, so that it does not outlive the test.
    pub fn unmount_unexpected(&self) {
        if let Err(error) = detach(&self.mountpoint, MntFlags::MNT_DETACH) {
            eprintln!("umount {}: {error}", self.mountpoint.display());
        }
    }

    /// The command as it will be run.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program[0]);
        command.args(&self.program[1..]);
        self.options.iter().for_each(|option| {
            command.arg("-o").arg(option);
        });
        command.arg(&self.mountpoint).envs(self.environment.iter().cloned()).stdin(Stdio::null());
        command
    }

    /// Runs the command to its end: the server's fork, or the refusal.
    pub fn run(&self) -> Finished {
        // A file, not a pipe: a server that wrongly kept it open must fail its own test, not hang all others.
        let mut errors: File = tempfile::tempfile().expect("temporary file");
        let mut command = self.command();
        command.stdout(Stdio::null()).stderr(errors.try_clone().expect("dup"));
        let status = machine::start(&mut command).wait().unwrap_or_else(|error| panic!("{:?}: {error}", self.program));
        let mut stderr = String::new();
        errors.rewind().and_then(|()| errors.read_to_string(&mut stderr)).expect("read standard error");
        Finished { status, stderr }
    }

    /// Mounts, and panics with the command's own words if that fails.
    #[track_caller]
    pub fn mount(self) -> LaminaMount {
        let mut mount = LaminaMount { lamina: self, server: None };
        mount.start();
        mount
    }
}

struct Server {
    pid: Pid,
    pidfd: OwnedFd,
}

/// A live mount.
pub struct LaminaMount {
    lamina: Lamina,
    server: Option<Server>,
}

impl LaminaMount {
    /// The mount of `layers` with the default options.
    #[track_caller]
    pub fn new(layers: &Layers) -> LaminaMount {
        Lamina::on(layers).mount()
    }

    #[track_caller]
    fn start(&mut self) {
        let finished = self.lamina.run();
        assert!(finished.status.success(), "{:?}: {}\n{}", self.lamina.command(), finished.status, finished.stderr);
        let pid = find_server(&self.lamina.mountpoint).expect("a lamina-fs process with this mountpoint");
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).expect("pidfd_open");
        self.server = Some(Server { pid, pidfd });
    }

    /// The mountpoint.
    pub fn path(&self) -> &Path {
        &self.lamina.mountpoint
    }

    /// A path inside the mount.
    pub fn join(&self, path: &str) -> PathBuf {
        self.lamina.mountpoint.join(path)
    }

    /// The server's process id.
    pub fn server_pid(&self) -> Pid {
        self.server.as_ref().expect("mounted").pid
    }

    /// Makes the kernel forget what nothing holds of this mount.
    #[track_caller]
    pub fn drop_caches(&self) {
        machine::forget_names(self.path());
    }

    /// Resident memory of the server in KiB, from /proc/PID/status.
    pub fn resident_kib(&self) -> u64 {
        growth::resident_kib(self.server_pid().as_raw_nonzero().get())
    }

    /// Unmounts and waits until the server has exited; panics if something keeps the mount busy.
    #[track_caller]
    pub fn unmount(&mut self) {
        detach(self.path(), MntFlags::empty())
            .unwrap_or_else(|error| panic!("umount {}: {error}", self.path().display()));
        self.wait_for_exit();
    }

    /// Waits until the server has exited for another reason, such as a signal.
    #[track_caller]
    pub fn wait_for_exit(&mut self) {
        let server = self.server.take().expect("mounted");
        assert!(exited(&server), "lamina-fs {} is still there {EXIT_TIMEOUT_MS} ms after unmounting", server.pid);
    }

    /// Unmounts, waits, and mounts again with the same command line.
    #[track_caller]
    pub fn remount(&mut self) {
        self.unmount();
        self.start();
    }
}

impl Drop for LaminaMount {
    fn drop(&mut self) {
        let Some(server) = self.server.take() else { return };
        let detached = detach(self.path(), MntFlags::empty()).or_else(|_| detach(self.path(), MntFlags::MNT_DETACH));
        // After a lazy unmount the server lives as long as the descriptors that the unwinding test still holds, and a mount that
        // cannot be taken away lets it live on: end it.
        let end = |signal| rustix::process::pidfd_send_signal(&server.pidfd, signal);
        if (std::thread::panicking() || detached.is_err())
            && let Err(error) = end(rustix::process::Signal::KILL)
        {
            eprintln!("lamina-fs was gone: {error}");
        }
        let outcome = match (exited(&server), detached) {
            (true, Ok(())) => return,
            (false, _) => format!("lamina-fs {} does not exit", server.pid),
            (true, Err(error)) => format!("umount {}: {error}", self.path().display()),
        };
        // A second panic would end the whole run.
        if std::thread::panicking() { eprintln!("{outcome}") } else { panic!("{outcome}") }
    }
}

fn exit_timeout() -> PollTimeout {
    PollTimeout::try_from(EXIT_TIMEOUT_MS).expect("not negative")
}

fn exited(server: &Server) -> bool {
    let mut wait = [PollFd::new(server.pidfd.as_fd(), PollFlags::POLLIN)];
    matches!(nix::poll::poll(&mut wait, exit_timeout()), Ok(1))
}

/// Takes a mount away, as root of this namespace or with fusermount3.
pub fn detach(path: &Path, flags: MntFlags) -> Result<(), String> {
    machine::while_nothing_starts(|| detach_alone(path, flags))
}

fn detach_alone(path: &Path, flags: MntFlags) -> Result<(), String> {
    if machine::is_root() {
        return umount2(path, flags).map_err(|error| error.to_string());
    }
    let lazy = (flags == MntFlags::MNT_DETACH).then_some("-z");
    let mut command = Command::new("fusermount3");
    let output = command.arg("-u").args(lazy).arg(path).output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// The server of a mountpoint: the process whose last argument it is.
pub fn find_server(mountpoint: &Path) -> Option<Pid> {
    let wanted = mountpoint.to_str()?.as_bytes();
    let processes = std::fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let serves = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        words.next().is_some_and(|program| !program.ends_with(b"sh")) && words.any(|word| word == wanted)
    };
    pids.filter(serves).find_map(Pid::from_raw)
}

/// Waits until something is mounted at `path`: the kernel wakes readers of /proc/thread-self/mountinfo at each change, see proc(5).
pub fn wait_until_mounted(path: &Path) {
    let wanted = format!(" {} ", path.display());
    let mut table = File::open("/proc/thread-self/mountinfo").expect("mountinfo");
    loop {
        let mut text = String::new();
        table.rewind().and_then(|()| table.read_to_string(&mut text)).expect("read mountinfo");
        if text.contains(&wanted) {
            return;
        }
        let mut wait = [PollFd::new(table.as_fd(), PollFlags::POLLPRI)];
        let changed = nix::poll::poll(&mut wait, exit_timeout()).expect("poll");
        assert_ne!(changed, 0, "nothing was mounted at {}", path.display());
    }
}
