//! The server in the background.
//!
//! Owns how the server is detached and how it reports. Must not know mounting. Invariant: the first process exits 0 only
//! after the server said that the mount is live, and repeats the server's sentence otherwise.
//!
//! The program starts itself anew instead of forking: a new process image has no threads or locks to inherit, and no unsafe
//! call is needed. The report comes over the new process's standard output.

use super::session::SessionError;
use std::fs::OpenOptions;
use std::io::{Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// In the environment of a server that reports on its standard output.
const REPORTS: &str = "_LAMINA_FS_REPORTS";

/// The report of a live mount. Anything else is a sentence.
const LIVE: &str = "live";

/// Whether this process is the server that another one waits for.
pub fn is_server() -> bool {
    std::env::var_os(REPORTS).is_some()
}

/// Starts the server and waits for its report.
///
/// # Errors
/// The server's own sentence.
pub fn start() -> Result<(), SessionError> {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "lamina-fs".into());
    let mut server = spawn(Command::new(own_program()).arg0(name).args(arguments)).map_err(SessionError::process(
        "cannot start the server in the background (is /proc mounted? -f works without it)",
    ))?;
    wait_live(&mut server)
}

/// Starts `command`, a `lamina-fs` with its arguments, as a server that reports to us: it is our child, and outlives us.
///
/// # Errors
/// As spawn(2) fails.
pub fn spawn(command: &mut Command) -> std::io::Result<Child> {
    command.env(REPORTS, "1").stdin(Stdio::null()).stdout(Stdio::piped()).spawn()
}

/// Becomes `command`, as [`spawn`] starts it; its report goes to `report`. Returns only on failure.
pub fn become_server(command: &mut Command, report: OwnedFd) -> std::io::Error {
    command.env(REPORTS, "1").stdin(Stdio::null()).stdout(report).exec()
}

/// Reads what a server that [`become_server`] started reports: nothing once its mount is live, its own sentence otherwise.
///
/// # Errors
/// As read(2) fails.
pub fn hear(mut report: impl Read) -> std::io::Result<Option<String>> {
    let mut sentence = String::new();
    report.read_to_string(&mut sentence)?;
    Ok((sentence != LIVE).then_some(sentence))
}

/// Waits until the mount of a server that [`spawn`] started is live.
///
/// # Errors
/// The server's own sentence; then it has ended or is about to.
pub fn wait_live(server: &mut Child) -> Result<(), SessionError> {
    let heard = server.stdout.take().map(hear).transpose();
    let heard = heard.map_err(SessionError::process("cannot read the server's report"))?;
    let Some(report) = heard.unwrap_or_else(|| Some(String::new())) else { return Ok(()) };
    let status = server.wait().map_err(SessionError::process("cannot wait for the server"))?;
    Err(SessionError::Server(match report.is_empty() {
        true => format!("the server ended before the mount was live: {status}"),
        false => report,
    }))
}

/// By its own path, so that the process keeps its name; a program that was replaced meanwhile is still found by the kernel.
fn own_program() -> PathBuf {
    let link = PathBuf::from("/proc/self/exe");
    std::fs::read_link(&link).ok().filter(|program| program.exists()).unwrap_or(link)
}

/// In the server, first thing: leaves the terminal and takes the name that the user called.
pub fn detach(name: &str) -> Result<(), SessionError> {
    nix::unistd::setsid().map_err(SessionError::process("cannot leave the terminal"))?;
    let name = std::ffi::CString::new(name).unwrap_or_default();
    rustix::thread::set_name(&name).map_err(SessionError::process("cannot set the process name"))
}

/// In the server: the mount is live. Lets go of the directory and of everything that somebody may wait for.
pub fn report_live() -> Result<(), SessionError> {
    let what = "cannot detach from the terminal";
    nix::unistd::chdir("/").map_err(SessionError::process(what))?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    let null = null.map_err(SessionError::process(what))?;
    // Before the report: who captured stderr must see its end as soon as the first process is gone.
    nix::unistd::dup2_stderr(&null).map_err(SessionError::process(what))?;
    report(LIVE)?;
    nix::unistd::dup2_stdout(&null).map_err(SessionError::process(what))
}

/// In the server: it failed, and this is why.
pub fn report(text: &str) -> Result<(), SessionError> {
    let mut output = std::io::stdout();
    let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    written.map_err(SessionError::process("cannot report to the waiting process"))
}
