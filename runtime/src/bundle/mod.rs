//! The configuration of an image and what a user asks for become an OCI configuration.
//!
//! Owns docker's defaults: capabilities, mounts, paths that are hidden, the seccomp profile. Must not know the store or processes. Invariant: pure
//! but for the seccomp profile, which is a file of the host; what depends on the ids of one start comes in `adapt`.

pub(crate) mod defaults;
pub mod seccomp;
mod volume;

pub use seccomp::Seccomp;
pub use volume::{Tmpfs, Volume};

use crate::container::ids::Ids;
use crate::container::{Error, Result};
use oci_spec::image::Config;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Who runs, as the image names him, in the annotations of a base configuration.
const USER: &str = "io.lamina.user";
/// Which seccomp profile, in the annotations of a base configuration.
const SECCOMP: &str = "io.lamina.seccomp";

/// Microseconds over which `--cpus` is counted: the kernel's own default.
const CPU_PERIOD_MICROSECONDS: f64 = 100_000.0;

/// What of the host's network a container has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// A loopback of its own, and nothing else.
    #[default]
    None,
    /// All of it.
    Host,
}

/// What a user asks for on top of an image.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Arguments of the entrypoint, or the command.
    pub command: Vec<String>,
    /// The entrypoint in place of the image's; its command is dropped then, as docker does.
    pub entrypoint: Option<String>,
    /// `NAME=VALUE`.
    pub environment: Vec<String>,
    /// The working directory.
    pub directory: Option<String>,
    /// `USER[:GROUP]`.
    pub user: Option<String>,
    /// The host's name inside.
    pub hostname: Option<String>,
    /// Directories and files of the host.
    pub volumes: Vec<Volume>,
    /// Directories in memory.
    pub tmpfs: Vec<Tmpfs>,
    /// The root filesystem cannot be written.
    pub read_only: bool,
    /// Bytes.
    pub memory: Option<i64>,
    /// Processors, in parts.
    pub cpus: Option<f64>,
    /// Processes.
    pub pids: Option<i64>,
    /// What of the network.
    pub network: Network,
    /// A terminal.
    pub terminal: bool,
    /// The system calls.
    pub seccomp: Seccomp,
}

/// What a bundle is made of besides a wish.
#[derive(Debug)]
pub struct Ground<'a> {
    /// The image's configuration, if it has that part.
    pub image: Option<&'a Config>,
    /// 12 digits: the host's name inside where nobody chose one.
    pub short_id: &'a str,
    /// The container's directory, in which `hosts`, `hostname`, `resolv.conf` and the anonymous volumes lie.
    pub dir: &'a Path,
    /// Whether this is no root.
    pub rootless: bool,
}

/// A base configuration, and the names that it uses.
#[derive(Debug)]
pub struct Bundle {
    /// config.json, but for what `adapt` adds.
    pub base: Value,
    /// The command line.
    pub command: Vec<String>,
    /// The name of the host inside.
    pub hostname: String,
    /// The anonymous volumes: the directories below `volumes/`.
    pub anonymous: Vec<String>,
}

/// Puts the command line together.
///
/// # Errors
/// [`Error::Usage`] if there is none.
fn command(wish: &Wish, image: Option<&Config>) -> Result<Vec<String>> {
    let of_image = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
    let mut words = match &wish.entrypoint {
        Some(entrypoint) => Some(entrypoint.clone()).filter(|word| !word.is_empty()).into_iter().collect(),
        None => of_image(image.and_then(|image| image.entrypoint().as_ref())),
    };
    if wish.command.is_empty() && wish.entrypoint.is_none() {
        words.extend(of_image(image.and_then(|image| image.cmd().as_ref())));
    }
    words.extend(wish.command.iter().cloned());
    match words.is_empty() {
        true => Err(Error::usage("no command specified: the image has none, so name one after the image")),
        false => Ok(words),
    }
}

/// Those of the image, then ours, then the user's: of one name, the last counts.
fn environment(wish: &Wish, image: Option<&Config>, hostname: &str) -> Vec<String> {
    let mut all = vec![format!("PATH={}", defaults::PATH), format!("HOSTNAME={hostname}")];
    if wish.terminal {
        all.push("TERM=xterm".to_owned());
    }
    all.extend(image.and_then(|image| image.env().clone()).unwrap_or_default());
    all.extend(wish.environment.iter().cloned());
    let mut kept: Vec<String> = Vec::new();
    for entry in all {
        let name = entry.split('=').next().unwrap_or_default().to_owned();
        kept.retain(|old| old.split('=').next() != Some(&name));
        kept.push(entry);
    }
    kept
}

/// Makes the base configuration.
///
/// # Errors
/// [`Error::Usage`] for what cannot be done as asked.
pub fn build(wish: &Wish, ground: &Ground<'_>) -> Result<Bundle> {
    let command = command(wish, ground.image)?;
    let host_name = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    let hostname = match (&wish.hostname, wish.network) {
        (Some(name), _) => name.clone(),
        (None, Network::Host) => host_name(),
        (None, Network::None) => ground.short_id.to_owned(),
    };
    let of_image = |value: Option<&String>| value.filter(|value| !value.is_empty()).cloned();
    let directory =
        wish.directory.clone().or_else(|| of_image(ground.image.and_then(|image| image.working_dir().as_ref())));
    let directory = directory.unwrap_or_else(|| "/".to_owned());
    if !directory.starts_with('/') {
        return Err(Error::usage(format!("the working directory {directory:?} is not an absolute path")));
    }
    let user = wish.user.clone().or_else(|| of_image(ground.image.and_then(|image| image.user().as_ref())));
    let mut mounts = defaults::mounts(ground.rootless);
    mounts.extend(defaults::files(ground.dir, wish.read_only));
    let anonymous = volume::anonymous(wish, ground.image);
    mounts.extend(volume::mounts(wish, &anonymous, ground.dir));
    let mut kinds = vec!["pid", "ipc", "uts", "mount", "cgroup"];
    if wish.network == Network::None {
        kinds.push("network");
    }
    let namespaces: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
    let base = json!({
        "ociVersion": crate::oci::spec::VERSION,
        "process": {
            "terminal": wish.terminal,
            "user": {"uid": 0, "gid": 0},
            "args": command,
            "env": environment(wish, ground.image, &hostname),
            "cwd": directory,
            "capabilities": defaults::capabilities(),
        },
        "root": {"path": "rootfs", "readonly": wish.read_only},
        "hostname": hostname,
        "mounts": mounts,
        "annotations": {USER: user.unwrap_or_default(), SECCOMP: wish.seccomp.to_string()},
        "linux": {
            "namespaces": namespaces,
            "resources": resources(wish, ground.rootless),
            "maskedPaths": defaults::MASKED,
            "readonlyPaths": defaults::READ_ONLY,
        },
    });
    Ok(Bundle { base, command, hostname, anonymous })
}

fn resources(wish: &Wish, rootless: bool) -> Value {
    let mut resources = json!({});
    if !rootless {
        resources["devices"] = json!([{"allow": false, "access": "rwm"}]);
    }
    if let Some(bytes) = wish.memory {
        resources["memory"] = json!({"limit": bytes});
    }
    if let Some(cpus) = wish.cpus {
        let quota = (cpus * CPU_PERIOD_MICROSECONDS) as i64;
        resources["cpu"] = json!({"quota": quota, "period": CPU_PERIOD_MICROSECONDS as u64});
    }
    if let Some(pids) = wish.pids {
        resources["pids"] = json!({"limit": pids});
    }
    resources
}

/// What a base configuration says of one annotation.
fn annotation<'a>(base: &'a Value, name: &str) -> &'a str {
    base["annotations"][name].as_str().unwrap_or_default()
}

/// Who runs, as the image names him; nothing means root.
pub fn user(base: &Value) -> &str {
    annotation(base, USER)
}

/// The configuration for one start: `namespace` is the file of the user namespace that the root filesystem was mounted in.
///
/// # Errors
/// [`Error::Io`], [`Error::Json`] of the seccomp profile.
pub fn adapt(base: &Value, ids: &Ids, namespace: Option<&Path>) -> Result<Value> {
    let mut spec = base.clone();
    if let (Some(path), Some(list)) = (namespace, spec["linux"]["namespaces"].as_array_mut()) {
        list.push(json!({"type": "user", "path": path}));
    }
    let chosen: Seccomp = annotation(base, SECCOMP).parse()?;
    let mut profile = chosen.profile(&defaults::CAPABILITIES)?;
    if matches!(ids, Ids::One(_)) {
        profile = Some(seccomp::with_one_id(profile));
        if let Some(environment) = spec["process"]["env"].as_array_mut() {
            environment.push(defaults::apt_variable().into());
        }
        if let Some(mounts) = spec["mounts"].as_array_mut() {
            mounts.push(defaults::apt_mount());
        }
    }
    if let Some(profile) = profile {
        spec["linux"]["seccomp"] = profile;
    }
    Ok(spec)
}

/// Labels of the image under those of the user.
pub fn labels(image: Option<&Config>, own: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let below = image.and_then(|image| image.labels().clone()).unwrap_or_default();
    below.into_iter().chain(own.clone()).collect()
}

#[cfg(test)]
mod tests;
