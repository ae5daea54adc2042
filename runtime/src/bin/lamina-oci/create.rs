//! `lamina-oci create`.

use clap::Args;
use lamina_runtime::error::Result;
use lamina_runtime::oci::create::{self, Options};
use lamina_runtime::oci::rootfs::Entry;
use lamina_runtime::oci::state::Root;
use std::path::PathBuf;

/// What `create` and `run` have in common.
#[derive(Debug, Args)]
pub struct Common {
    /// Directory of config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// Socket that receives the container's terminal
    #[arg(long, value_name = "PATH")]
    console_socket: Option<PathBuf>,
    /// File to write the number of the container's process to
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Socket that receives a descriptor of the container's process
    #[arg(long, value_name = "PATH")]
    pidfd_socket: Option<PathBuf>,
    /// Move the root instead of pivoting, for hosts that run from a ramfs
    #[arg(long)]
    no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    no_new_keyring: bool,
    /// Descriptors after the standard streams to pass to the container
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Name of the container
    id: String,
}

impl Common {
    /// As the library takes them.
    pub fn options(self, systemd_cgroup: bool) -> Options {
        Options {
            id: self.id,
            bundle: self.bundle,
            console_socket: self.console_socket,
            pid_file: self.pid_file,
            pidfd_socket: self.pidfd_socket,
            entry: if self.no_pivot { Entry::Move } else { Entry::Pivot },
            keyring: !self.no_new_keyring,
            preserved: self.preserve_fds,
            systemd_cgroup,
            rootfs_tree: None,
            streams: None,
            note: None,
            user: None,
        }
    }
}

/// Make a container; its process waits for `start`
#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    common: Common,
}

impl Create {
    pub fn run(self, root: &Root, systemd_cgroup: bool) -> Result<()> {
        create::create(root, &self.common.options(systemd_cgroup))
    }
}
