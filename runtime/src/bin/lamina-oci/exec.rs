//! `lamina-oci exec`.

use clap::Args;
use lamina_runtime::error::{Doing, Error, Result};
use lamina_runtime::oci::exec::{self, Options};
use lamina_runtime::oci::state::Root;
use oci_spec::runtime::{Capabilities, Process};
use std::fs;
use std::path::PathBuf;

/// Run a process in a container
#[derive(Debug, Args)]
pub struct Exec {
    /// File with the process, as in config.json
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Socket that receives the process's terminal
    #[arg(long, value_name = "PATH")]
    console_socket: Option<PathBuf>,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Environment variable, NAME=VALUE; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// UID or UID:GID
    #[arg(short, long, value_name = "UID:GID")]
    user: Option<String>,
    /// Group to be in as well; may be repeated
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<u32>,
    /// Capability to have as well; may be repeated
    #[arg(short, long, value_name = "NAME")]
    cap: Vec<String>,
    /// Rule out new privileges
    #[arg(long)]
    no_new_privs: bool,
    /// AppArmor profile
    #[arg(long, value_name = "NAME")]
    apparmor: Option<String>,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// Leave it running
    #[arg(short, long)]
    detach: bool,
    /// File to write the number of the process to
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Socket that receives a descriptor of the process
    #[arg(long, value_name = "PATH")]
    pidfd_socket: Option<PathBuf>,
    /// Descriptors after the standard streams to pass to the process
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Also in a paused container
    #[arg(long)]
    ignore_paused: bool,
    /// Cgroup below the container's
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,
    /// Name of the container
    id: String,
    /// Program and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Exec {
    pub fn run(self, root: &Root) -> Result<u8> {
        let process = match &self.process {
            Some(path) => {
                let bytes = fs::read(path).doing(|| format!("read {}", path.display()))?;
                let place = path.display().to_string();
                serde_json::from_slice(&bytes).map_err(|source| Error::Json { place, source })?
            }
            None => self.assemble(root)?,
        };
        let options = Options {
            id: self.id,
            process,
            console_socket: self.console_socket,
            pid_file: self.pid_file,
            pidfd_socket: self.pidfd_socket,
            detach: self.detach,
            preserved: self.preserve_fds,
            ignore_paused: self.ignore_paused,
            cgroup: self.cgroup,
            streams: None,
            user: None,
        };
        exec::exec(root, &options).map(|code| code as u8)
    }

    /// The container's own process, with what the flags change.
    fn assemble(&self, root: &Root) -> Result<Process> {
        let spec = root.load(&self.id)?.spec()?;
        let mut process = spec.process().clone().ok_or_else(|| Error::invalid("process", "the container has none"))?;
        process.set_args(Some(self.command.clone())).set_terminal(Some(self.tty));
        if let Some(cwd) = &self.cwd {
            process.set_cwd(cwd.clone());
        }
        let mut environment = process.env().clone().unwrap_or_default();
        environment.extend(self.env.iter().cloned());
        process.set_env(Some(environment));
        let mut user = process.user().clone();
        if let Some(text) = &self.user {
            let bad = || Error::invalid("--user", format!("{text:?} is not UID or UID:GID in numbers"));
            let (uid, gid) = text.split_once(':').map_or((text.as_str(), None), |(uid, gid)| (uid, Some(gid)));
            user.set_uid(uid.parse().map_err(|_| bad())?);
            if let Some(gid) = gid {
                user.set_gid(gid.parse().map_err(|_| bad())?);
            }
        }
        if !self.additional_gids.is_empty() {
            let mut groups = user.additional_gids().clone().unwrap_or_default();
            groups.extend(&self.additional_gids);
            user.set_additional_gids(Some(groups));
        }
        process.set_user(user);
        self.grant(&mut process)?;
        if self.no_new_privs {
            process.set_no_new_privileges(Some(true));
        }
        if self.apparmor.is_some() {
            process.set_apparmor_profile(self.apparmor.clone());
        }
        if self.process_label.is_some() {
            process.set_selinux_label(self.process_label.clone());
        }
        Ok(process)
    }

    fn grant(&self, process: &mut Process) -> Result<()> {
        let names = serde_json::json!(self.cap);
        let added: Capabilities =
            serde_json::from_value(names).map_err(|source| Error::Json { place: "--cap".into(), source })?;
        if added.is_empty() {
            return Ok(());
        }
        let mut sets = process.capabilities().clone().unwrap_or_default();
        let with =
            |set: &Option<Capabilities>| Some(set.iter().flatten().chain(&added).copied().collect::<Capabilities>());
        let (bounding, effective, permitted) = (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
        sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
        process.set_capabilities(Some(sets));
        Ok(())
    }
}
