//! The flags that `run` and `create` share, and those of any process inside.
//!
//! Owns their names, which are docker's, and how they become a wish. Invariant: what cannot be understood is refused before anything is made.

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use lamina_runtime::bundle::{Network, Seccomp, Tmpfs, Volume, Wish};
use lamina_runtime::container::Name;
use lamina_runtime::container::make::Plan;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Whether the image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Pull {
    /// If the store does not have it
    #[default]
    Missing,
    /// Never
    Never,
    /// Always
    Always,
}

/// What of the host's network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Net {
    /// A loopback only
    #[default]
    None,
    /// All of it
    Host,
}

/// What a process in a container is to be.
#[derive(Args, Debug)]
pub struct ProcessFlags {
    /// Environment variable, NAME=VALUE, or NAME for the caller's; may be repeated
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// File with one environment variable a line; may be repeated
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User, as the image names him
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
}

/// What a container is to be.
#[derive(Args, Debug)]
pub struct Flags {
    /// Keep standard input open
    #[arg(short, long)]
    pub interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Remove it when it ends
    #[arg(long)]
    pub rm: bool,
    /// Name of the container
    #[arg(long)]
    name: Option<Name>,
    #[command(flatten)]
    process: ProcessFlags,
    /// Directory or file of the host inside; may be repeated
    #[arg(short, long, value_name = "SOURCE:DESTINATION[:OPTIONS]")]
    volume: Vec<String>,
    /// Directory in memory; may be repeated
    #[arg(long, value_name = "DESTINATION[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// Mount the root filesystem read-only
    #[arg(long)]
    read_only: bool,
    /// Limit of memory, such as 512m
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Limit of processor time, such as 1.5
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<f64>,
    /// Limit of processes
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// What it has of the network
    #[arg(long, visible_alias = "network", value_enum, default_value_t)]
    net: Net,
    /// Program in place of the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Name of the host inside
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Label, NAME=VALUE; may be repeated
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// Signal that `stop` sends
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Seconds that `stop` waits before it kills
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u32>,
    /// seccomp=FILE or seccomp=unconfined
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Whether the image is pulled
    #[arg(long, value_enum, default_value_t)]
    pub pull: Pull,
    /// File that the container's id is written to; it must not exist
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,
    /// Name of the image, or the beginning of its id
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Command, or arguments of the image's entrypoint
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Bytes of docker's units, each 1024 times the one before.
const UNITS: &str = "bkmgt";

impl Flags {
    /// What they say of the container.
    pub fn plan(&self) -> Plan {
        Plan {
            image: self.image.clone(),
            name: self.name.clone(),
            labels: pairs(&self.label),
            remove: self.rm,
            interactive: self.interactive,
            stop_signal: self.stop_signal.clone(),
            stop_timeout_seconds: self.stop_timeout,
        }
    }

    /// What they say of its process.
    pub fn wish(&self) -> anyhow::Result<Wish> {
        let network = match self.net {
            Net::None => Network::None,
            Net::Host => Network::Host,
        };
        if let Some(cpus) = self.cpus.filter(|cpus| !cpus.is_finite() || *cpus < 0.01) {
            bail!("--cpus {cpus}: at least 0.01 is needed");
        }
        Ok(Wish {
            command: self.command.clone(),
            entrypoint: self.entrypoint.clone(),
            environment: self.process.environment()?,
            directory: self.process.workdir.clone(),
            user: self.process.user.clone(),
            hostname: self.hostname.clone(),
            volumes: self.volume.iter().map(|text| text.parse::<Volume>()).collect::<Result<_, _>>()?,
            tmpfs: self.tmpfs.iter().map(|text| text.parse::<Tmpfs>()).collect::<Result<_, _>>()?,
            read_only: self.read_only,
            memory: self.memory.as_deref().map(bytes).transpose()?,
            cpus: self.cpus,
            pids: self.pids_limit,
            network,
            terminal: self.tty,
            seccomp: self.seccomp()?,
        })
    }

    fn seccomp(&self) -> anyhow::Result<Seccomp> {
        let mut chosen = Seccomp::default();
        for option in &self.security_opt {
            match option.split_once('=') {
                Some(("seccomp", value)) => chosen = value.parse()?,
                _ => bail!("--security-opt {option}: only seccomp=FILE and seccomp=unconfined are known"),
            }
        }
        // Read now, so that a mistake is told before there is a container.
        chosen.profile(&[])?;
        Ok(chosen)
    }
}

impl ProcessFlags {
    /// Variables of files, then those of the command line; a bare name takes the caller's value, if he has one.
    pub fn environment(&self) -> anyhow::Result<Vec<String>> {
        environment(&self.env_file, &self.env)
    }
}

fn environment(files: &[PathBuf], words: &[String]) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for file in files {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read --env-file {}", file.display()))?;
        let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
        found.extend(lines.map(str::to_owned));
    }
    found.extend(words.iter().cloned());
    let with_value = |entry: String| match entry.contains('=') {
        true => Some(entry),
        false => std::env::var(&entry).ok().map(|value| format!("{entry}={value}")),
    };
    match found.iter().find(|entry| entry.is_empty() || entry.starts_with('=')) {
        Some(entry) => bail!("invalid environment variable {entry:?}: it has no name"),
        None => Ok(found.into_iter().filter_map(with_value).collect()),
    }
}

fn pairs(words: &[String]) -> BTreeMap<String, String> {
    words
        .iter()
        .map(|word| word.split_once('=').unwrap_or((word, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn bytes(text: &str) -> anyhow::Result<i64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = lower[digits.len()..].trim_end_matches('b');
    let power = if unit.is_empty() { Some(0) } else { UNITS.find(unit).filter(|_| unit.len() == 1) };
    let count = digits.parse::<f64>().ok().filter(|count| *count > 0.0);
    match (count, power) {
        (Some(count), Some(power)) => Ok((count * 1024_f64.powi(power as i32)) as i64),
        _ => bail!("invalid size {text:?}: write a number with one of b, k, m, g, t, such as 512m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        for (text, size) in
            [("512m", 512 << 20), ("1g", 1 << 30), ("4096", 4096), ("1.5k", 1536), ("2GB", 2 << 30), ("7b", 7)]
        {
            assert_eq!(bytes(text).ok(), Some(size), "{text}");
        }
        for text in ["", "m", "0", "-1", "1x", "1mk"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_variable_without_value_is_the_callers() {
        let words = ["A=1", "PATH", "_LAMINA_NOT_SET"].map(str::to_owned);
        let found = environment(&[], &words).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found[0] == "A=1" && found[1].starts_with("PATH=/"));
        assert!(environment(&[], &["=x".to_owned()]).is_err());
    }
}
