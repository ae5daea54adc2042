//! What this machine has: privileges, devices, programs. Each check answers `None`, or the reason to skip as a sentence. Invariant: nothing
//! here changes the machine, nor what it has cached of anything but the filesystem that is named.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{PoisonError, RwLock};

use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Advice, CWD};
use rustix::io::Errno;
use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fspick};

use crate::rootless::Way;

/// Whether the test runs as root, of the machine or of a user namespace.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Missing: root of the machine.
pub fn root() -> Option<String> {
    (!is_root() || Way::current().is_some()).then(|| "this test needs root".into())
}

/// Missing: leave to give files to other users, and to become them.
pub fn owners() -> Option<String> {
    if Way::current() == Some(Way::ManyIds) { None } else { root() }
}

/// Missing: ids of other users, to be named in an ACL.
pub fn other_ids() -> Option<String> {
    (Way::current() == Some(Way::OneId)).then(|| "this namespace has one id".into())
}

/// Missing: mount(2).
pub fn mount_call() -> Option<String> {
    (!is_root()).then(|| "this test needs root, or a user namespace".into())
}

/// Missing: a /dev/fuse that this user may open.
pub fn fuse() -> Option<String> {
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    device.err().map(|error| format!("/dev/fuse cannot be opened: {error}"))
}

/// Missing: what every mounted test needs, which is root or a way without, and /dev/fuse.
pub fn mounts() -> Option<String> {
    if Way::current().is_some() { fuse() } else { root().or_else(fuse) }
}

/// Missing: what `io=passthrough` needs: Linux 6.9, and root outside of any user namespace.
pub fn passthrough() -> Option<String> {
    root().or_else(fuse).or_else(|| {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<u32>().ok());
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let ids = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let initial = ids.split_whitespace().eq(["0", "0", "4294967295"]);
        match (version >= (6, 9), initial) {
            (false, _) => Some(format!("this kernel is older than 6.9: {}", release.trim())),
            (true, false) => Some("this is root of a user namespace only".into()),
            (true, true) => None,
        }
    })
}

/// Missing: a filesystem type in /proc/filesystems.
pub fn filesystem(name: &str) -> Option<String> {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let found = known.lines().any(|line| line.split_whitespace().last() == Some(name));
    (!found).then(|| format!("this kernel has no {name}"))
}

/// Missing: a mount at `path` that can be written to.
pub fn writable(path: &str) -> Option<String> {
    let flags = rustix::fs::statvfs(path).ok()?.f_flag;
    flags.contains(rustix::fs::StatVfsMountFlags::RDONLY).then(|| format!("{path} is mounted read-only"))
}

/// Missing: a program on the search path (with the directories of administration).
pub fn program(name: &str) -> Option<String> {
    find_program(name).is_none().then(|| format!("{name} is not installed"))
}

/// The full path of a program.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let places = path.split(':').chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/bin"]);
    places.map(|place| Path::new(place).join(name)).find(|candidate| candidate.is_file())
}

/// Runs a program to its end and panics with what it printed unless it succeeds; answers its standard output.
#[track_caller]
pub fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> String {
    let output = output(program, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {}\n{error}", line(arguments), output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a program to its end; panics only when it cannot be started.
#[track_caller]
pub fn output<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Output {
    let program = find_program(program).unwrap_or_else(|| panic!("{program} is not installed"));
    let mut command = Command::new(&program);
    let child = start(command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    child.wait_with_output().unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

/// Held for reading while a program starts, for writing while a mount is taken away: until its execve(2) a program has whatever the threads of
/// its parent have open, and keeps their mounts busy.
static STARTING: RwLock<()> = RwLock::new(());

/// Starts a program; where tests share a process, none of them unmounts meanwhile.
#[track_caller]
pub fn start(command: &mut Command) -> Child {
    let _starting = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    command.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()))
}

/// Does something while no program starts.
pub(crate) fn while_nothing_starts<T>(act: impl FnOnce() -> T) -> T {
    let _alone = STARTING.write().unwrap_or_else(PoisonError::into_inner);
    act()
}

fn line<S: AsRef<OsStr>>(arguments: &[S]) -> String {
    arguments.iter().map(|word| word.as_ref().to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs a shell script, as root or as whoever we are.
#[track_caller]
pub fn shell(script: &str) -> String {
    run("sh", &["-euc", script])
}

/// Runs a shell script as the user and group `id`, without any other group or capability.
#[track_caller]
pub fn shell_as(id: u32, script: &str) -> Output {
    let id = id.to_string();
    output("setpriv", &["--reuid", &id, "--regid", &id, "--clear-groups", "--inh-caps=-all", "sh", "-euc", script])
}

/// Makes the kernel forget every name and inode of one filesystem that nothing holds, with the pages of these inodes. It does so whenever a
/// superblock is reconfigured, see fsconfig(2); here nothing about it is changed. Unlike /proc/sys/vm/drop_caches it leaves the caches of
/// the neighbours alone, and the root of a user namespace may do it to a mount of its own.
///
/// Who may not reconfigure, such as a user of fusermount3, gets nothing forgotten.
#[track_caller]
pub fn forget_names(mountpoint: &Path) {
    let picked = fspick(CWD, mountpoint, FsPickFlags::FSPICK_CLOEXEC);
    match picked.and_then(fsconfig_reconfigure) {
        Err(Errno::PERM) => {}
        outcome => outcome.unwrap_or_else(|error| panic!("reconfigure {}: {error}", mountpoint.display())),
    }
}

/// Drops the pages of an open file: what [`forget_names`] cannot, as the descriptor holds the inode.
#[track_caller]
pub fn drop_pages(open: &File) {
    // Only clean pages can be dropped. A fifo and the like has neither.
    match rustix::fs::fdatasync(open) {
        Err(Errno::INVAL) => return,
        outcome => outcome.expect("fdatasync"),
    }
    rustix::fs::fadvise(open, 0, None, Advice::DontNeed).expect("fadvise");
}

/// Gives this thread, and whatever it starts, a mount namespace of its own, once. A neighbour that makes a namespace would otherwise take a
/// copy of every mount along: a filesystem is then still in use after it was unmounted, and its upper layer with it. And what a killed
/// test leaves mounted goes with its last process.
///
/// Who may not, such as a user without a namespace, shares the mounts of whoever started the test.
#[track_caller]
pub fn take_own_mounts() {
    let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/mnt")).expect("a mount namespace");
    if namespace("thread-self") != namespace("self") {
        return;
    }
    match unshare(CloneFlags::CLONE_NEWNS) {
        Err(nix::errno::Errno::EPERM) => return,
        outcome => outcome.expect("unshare(CLONE_NEWNS)"),
    }
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
}

/// A number from the environment, else the default.
pub fn number_from_env(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}
