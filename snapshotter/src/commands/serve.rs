//! `lamina-snapshotter serve`.
//!
//! Owns the daemon's life: open, listen, report, serve, end. Invariant: its end takes no mount with it.

use super::{Root, notify};
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use lamina_snapshotter::host::find_lamina_fs;
use lamina_snapshotter::mount::Servers;
use lamina_snapshotter::snapshotter::Snapshotter;
use lamina_snapshotter::store::{Hold, Store};
use lamina_snapshotter::{service, sys};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[derive(Args, Debug)]
pub struct Serve {
    #[command(flatten)]
    root: Root,
    /// The unix socket that containerd is told of [default: /run/lamina/snapshotter.sock; without privilege
    /// $XDG_RUNTIME_DIR/lamina/snapshotter.sock]. A socket that a service manager passes takes its place.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The program that serves mounts [default: beside this one, else in PATH].
    #[arg(long, value_name = "PATH")]
    lamina_fs: Option<PathBuf>,
    /// How the log on standard error is written; the variable RUST_LOG says how much of it.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl Serve {
    pub fn run(self) -> anyhow::Result<()> {
        start_log(self.log_format);
        let lamina_fs = self.lamina_fs.clone().map_or_else(find_lamina_fs, Ok)?;
        let store = Store::open_for(&self.root.path()?, Hold::Daemon)?;
        let (listener, own_path) = self.listen()?;
        let servers = Servers::new(store.clone(), lamina_fs);
        let snapshotter = Snapshotter::start(store, servers)?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
        let served = runtime.block_on(async {
            let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
            // The queue of the socket holds whoever comes between this and the first accept.
            notify::notify("READY=1")
                .unwrap_or_else(|error| tracing::warn!(%error, "the service manager was not told"));
            let end = async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                tracing::info!("ending; the mounts stay");
            };
            service::serve(snapshotter, listener, end).await
        });
        if let Some(path) = own_path
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::warn!(%error, path = %path.display(), "the socket stays");
        }
        served.context("cannot serve")
    }

    /// The socket, and its path if we made it.
    fn listen(&self) -> anyhow::Result<(UnixListener, Option<PathBuf>)> {
        if let Some(passed) = sys::listen_descriptor() {
            return Ok((UnixListener::from(passed), None));
        }
        let path = self.socket.clone().map_or_else(default_socket, Ok)?;
        let listener = bind(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
        tracing::info!(socket = %path.display(), "listening");
        Ok((listener, Some(path)))
    }
}

/// Takes the place of a socket that nobody listens on any more.
fn bind(path: &Path) -> std::io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o711).create(parent)?;
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(std::io::Error::new(ErrorKind::AlreadyExists, "a file that is no socket has this name"));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(ErrorKind::AddrInUse.into()),
        Ok(_) => fs::remove_file(path)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    // Whoever may connect may mount: the owner only.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

pub fn default_socket() -> anyhow::Result<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return Ok("/run/lamina/snapshotter.sock".into());
    }
    let runtime =
        std::env::var_os("XDG_RUNTIME_DIR").context("XDG_RUNTIME_DIR is not set: name a socket with --socket")?;
    Ok(PathBuf::from(runtime).join("lamina/snapshotter.sock"))
}

fn start_log(format: LogFormat) {
    let level = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(level).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => log.json().init(),
    }
}
