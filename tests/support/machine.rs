//! What this machine has: privileges, devices, programs. Each check answers `None`, or the reason to skip as a sentence. Invariant: nothing
//! here changes the machine, except [`drop_caches`], which loses only what can be read again.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Whether the test runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Missing: root.
pub fn root() -> Option<String> {
    (!is_root()).then(|| "this test needs root".into())
}

/// Missing: a /dev/fuse that this user may open.
pub fn fuse() -> Option<String> {
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    device.err().map(|error| format!("/dev/fuse cannot be opened: {error}"))
}

/// Missing: root and /dev/fuse, what every mounted test needs.
pub fn mounts() -> Option<String> {
    root().or_else(fuse)
}

/// Missing: what `io=passthrough` needs: Linux 6.9, and root outside of any user namespace.
pub fn passthrough() -> Option<String> {
    mounts().or_else(|| {
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
    Command::new(&program).args(arguments).output().unwrap_or_else(|error| panic!("{}: {error}", program.display()))
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

/// Writes back dirty pages and drops the page, dentry and inode caches of the machine, where the machine is ours: the root of a user
/// namespace may not.
pub fn drop_caches() {
    rustix::fs::sync();
    match std::fs::write("/proc/sys/vm/drop_caches", "3") {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
        outcome => outcome.expect("drop_caches"),
    }
}

/// A number from the environment, else the default.
pub fn number_from_env(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}
