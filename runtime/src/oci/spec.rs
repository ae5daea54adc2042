//! config.json: reading it, and refusing what cannot be done before anything is.
//!
//! Invariant: a property of the specification that this runtime does not have is an error here, by name; an unknown one is ignored.

use crate::error::{Doing, Error, Result};
use oci_spec::runtime::{Linux, LinuxNamespaceType, Process, Spec};
use std::fs;
use std::path::{Path, PathBuf};

/// The file of a bundle, and of its copy in the state directory.
pub const CONFIG: &str = "config.json";

/// The release of the specification that this runtime was written against.
pub const VERSION: &str = "1.3.0";

/// Reads and checks `DIR/config.json`; the second half is the file as it was, for the copy.
pub fn load(dir: &Path) -> Result<(Spec, Vec<u8>)> {
    let path = dir.join(CONFIG);
    let bytes = fs::read(&path).doing(|| format!("read {}", path.display()))?;
    let spec = parse(&bytes, &path)?;
    Ok((spec, bytes))
}

/// The copy that `create` took; it was checked then.
pub fn reload(dir: &Path) -> Result<Spec> {
    let path = dir.join(CONFIG);
    let bytes = fs::read(&path).doing(|| format!("read {}", path.display()))?;
    parse(&bytes, &path)
}

fn parse(bytes: &[u8], path: &Path) -> Result<Spec> {
    serde_json::from_slice(bytes).map_err(|source| Error::Json { place: path.display().to_string(), source })
}

/// Refuses what the specification forbids and what this runtime does not have.
pub fn check(spec: &Spec) -> Result<()> {
    check_version(spec.version())?;
    if let Some(process) = spec.process() {
        check_process(process)?;
    }
    for mount in spec.mounts().iter().flatten() {
        if mount.destination().as_os_str().is_empty() {
            return Err(Error::invalid("mounts", "a mount has no destination"));
        }
    }
    if spec.vm().is_some() {
        return Err(Error::unsupported("vm", "this runtime makes containers of the host's kernel"));
    }
    check_annotations(spec)?;
    match spec.linux() {
        Some(linux) => check_linux(spec, linux),
        None => Err(Error::invalid("linux", "config.json has no such section, so nothing would be contained")),
    }
}

/// The process that `create` and `run` need.
pub fn process(spec: &Spec) -> Result<&Process> {
    let process = spec.process().as_ref();
    process.ok_or_else(|| Error::invalid("process", "config.json has no process, so there is nothing to start"))
}

/// The root filesystem as an absolute path.
pub fn rootfs(spec: &Spec, bundle: &Path) -> Result<PathBuf> {
    let root = spec.root().as_ref().ok_or_else(|| Error::invalid("root", "config.json has no root filesystem"))?;
    let path = bundle.join(root.path());
    fs::canonicalize(&path).doing(|| format!("root.path {}", path.display()))
}

/// Only the major number matters: the specification keeps compatibility within it.
fn check_version(version: &str) -> Result<()> {
    let numbers: Vec<&str> = version.split(['-', '+']).next().unwrap_or_default().split('.').collect();
    let semantic = numbers.len() == 3 && numbers.iter().all(|number| number.parse::<u32>().is_ok());
    match numbers.first() {
        Some(&"1") if semantic => Ok(()),
        _ if semantic => Err(Error::unsupported(format!("ociVersion {version}"), "this runtime reads 1.x")),
        _ => Err(Error::invalid("ociVersion", format!("{version:?} is not a version of the form 1.0.2"))),
    }
}

/// Refuses a process that cannot start: also those that `exec` is given.
pub fn check_process(process: &Process) -> Result<()> {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(Error::invalid("process.args", "must not be empty"));
    }
    if !process.cwd().is_absolute() {
        return Err(Error::invalid("process.cwd", format!("{:?} is not an absolute path", process.cwd())));
    }
    let mut seen = Vec::new();
    for limit in process.rlimits().iter().flatten() {
        if seen.contains(&limit.typ()) {
            return Err(Error::invalid("process.rlimits", format!("{} appears twice", limit.typ())));
        }
        seen.push(limit.typ());
    }
    if process.exec_cpu_affinity().is_some() {
        return Err(Error::unsupported("process.execCPUAffinity", "use linux.resources.cpu.cpus"));
    }
    Ok(())
}

fn check_annotations(spec: &Spec) -> Result<()> {
    match spec.annotations().iter().flatten().any(|(key, _)| key.is_empty()) {
        true => Err(Error::invalid("annotations", "a key is the empty string")),
        false => Ok(()),
    }
}

fn check_linux(spec: &Spec, linux: &Linux) -> Result<()> {
    if linux.intel_rdt().is_some() {
        return Err(Error::unsupported("linux.intelRdt", "remove it"));
    }
    if linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()) {
        return Err(Error::unsupported("linux.netDevices", "move the device with a createRuntime hook"));
    }
    if linux.memory_policy().is_some() {
        return Err(Error::unsupported("linux.memoryPolicy", "use linux.resources.cpu.mems"));
    }
    let mut seen = Vec::new();
    for namespace in linux.namespaces().iter().flatten() {
        if seen.contains(&namespace.typ()) {
            return Err(Error::invalid("linux.namespaces", format!("{} appears twice", namespace.typ())));
        }
        if namespace.path().as_ref().is_some_and(|path| !path.is_absolute()) {
            return Err(Error::invalid("linux.namespaces", format!("the path of {} is not absolute", namespace.typ())));
        }
        seen.push(namespace.typ());
    }
    let has = |kind: LinuxNamespaceType| seen.contains(&kind);
    if !has(LinuxNamespaceType::Mount) {
        return Err(Error::unsupported(
            "a container without a mount namespace",
            "add {\"type\":\"mount\"} to linux.namespaces",
        ));
    }
    if (spec.hostname().is_some() || spec.domainname().is_some()) && !has(LinuxNamespaceType::Uts) {
        return Err(Error::invalid("hostname", "needs a namespace of type uts, or it would rename the host"));
    }
    let mapped = linux.uid_mappings().iter().flatten().chain(linux.gid_mappings().iter().flatten()).next().is_some();
    if mapped && !has(LinuxNamespaceType::User) {
        return Err(Error::invalid("linux.uidMappings", "needs a namespace of type user"));
    }
    if linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty()) && !has(LinuxNamespaceType::Time) {
        return Err(Error::invalid("linux.timeOffsets", "needs a namespace of type time"));
    }
    Ok(())
}
