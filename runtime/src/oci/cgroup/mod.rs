//! Cgroups: a container's directory in every hierarchy that this host has mounted, version 1, version 2 or both.
//!
//! `layout` finds the hierarchies, `path` names the container's place in them, `v1` and `v2` know which limit is which file.
//! Invariant: what cannot be had is an error only if a limit asked for it; who asks for no limit can do without cgroups.

pub mod devices;
pub mod entrance;
pub mod layout;
pub mod mount;
pub mod path;
pub mod statistics;
pub mod v1;
pub mod v2;

use super::log;
use crate::error::{Doing, Error, Result};
use layout::{Hierarchy, Layout};
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One value for one file of one controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// As the kernel names it.
    pub controller: &'static str,
    /// Below the cgroup's directory.
    pub file: String,
    /// What is written.
    pub value: String,
}

impl Setting {
    fn new(controller: &'static str, file: impl Into<String>, value: impl ToString) -> Self {
        Setting { controller, file: file.into(), value: value.to_string() }
    }
}

/// The container's directory in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Where it is.
    pub path: PathBuf,
    /// What the hierarchy controls; of version 2, what this directory does.
    pub controllers: Vec<String>,
    /// Of which version.
    pub unified: bool,
}

/// All directories of a container: its cgroup. Empty where the host gave none and none was needed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership(pub Vec<Directory>);

/// How often a directory that was just left may still count as busy, and how long between: the kernel lets go of the dead a little
/// after it tells of them.
const REMOVE_ATTEMPTS_MAX: u32 = 200;
const REMOVE_PAUSE: Duration = Duration::from_millis(5);

/// How often a freezing cgroup is asked whether it is frozen.
const FREEZE_ATTEMPTS_MAX: u32 = 2000;
const FREEZE_PAUSE: Duration = Duration::from_micros(500);

/// Makes the directories and sets the limits. Directories made before an error are removed again.
pub fn create(wanted: &path::CgroupPath, resources: Option<&LinuxResources>) -> Result<Membership> {
    let layout = Layout::detect()?;
    let mut made = Membership::default();
    match fill(&mut made, &layout, wanted, resources) {
        Ok(()) => Ok(made),
        Err(error) => {
            made.remove()?;
            Err(error)
        }
    }
}

fn fill(
    made: &mut Membership,
    layout: &Layout,
    wanted: &path::CgroupPath,
    resources: Option<&LinuxResources>,
) -> Result<()> {
    for hierarchy in &layout.0 {
        let path = wanted.within(hierarchy);
        match make(hierarchy, &path, resources, layout.is_unified()) {
            Ok(directory) => made.0.push(directory),
            Err(Error::Os { source, .. }) if is_not_ours(&source) => {
                log::debug(&format!("{}: {source}", path.display()))
            }
            Err(error) => return Err(error),
        }
    }
    match resources {
        Some(resources) => made.apply(resources),
        None => Ok(()),
    }
}

fn is_not_ours(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

fn make(hierarchy: &Hierarchy, path: &Path, resources: Option<&LinuxResources>, only: bool) -> Result<Directory> {
    let found = path.exists();
    fs::create_dir_all(path).doing(|| format!("make cgroup {}", path.display()))?;
    if found {
        check_usable(path)?;
    }
    let controllers = if hierarchy.unified {
        let asked: Vec<&str> = resources.map(v2::settings).iter().flatten().map(|setting| setting.controller).collect();
        v2::enable(&hierarchy.point, path, &asked, only)?
    } else {
        if hierarchy.controllers.iter().any(|name| name == "cpuset") {
            v1::inherit_cpuset(&hierarchy.point, path)?;
        }
        hierarchy.controllers.clone()
    };
    Ok(Directory { path: path.to_owned(), controllers, unified: hierarchy.unified })
}

/// A cgroup with somebody in it would give our limits to them, and their freezing and killing to us.
fn check_usable(path: &Path) -> Result<()> {
    let place = || format!("cgroup {}", path.display());
    if !processes(path)?.is_empty() {
        return Err(Error::invalid(place(), "container's cgroup is not empty; choose another linux.cgroupsPath"));
    }
    match is_frozen(path)? {
        true => Err(Error::invalid(place(), "container's cgroup unexpectedly frozen; thaw it first")),
        false => Ok(()),
    }
}

/// Every process below a directory of a cgroup.
fn processes(path: &Path) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    let text = match fs::read_to_string(path.join("cgroup.procs")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        // A threaded cgroup lists its processes above.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(found),
        outcome => outcome.doing(|| format!("read the processes of cgroup {}", path.display()))?,
    };
    found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    for below in directories(path)? {
        found.extend(processes(&below)?);
    }
    Ok(found)
}

fn directories(path: &Path) -> Result<Vec<PathBuf>> {
    let doing = || format!("list cgroup {}", path.display());
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        outcome => outcome.doing(doing)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.doing(doing)?;
        if entry.file_type().doing(doing)?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn is_frozen(path: &Path) -> Result<bool> {
    for (file, frozen) in [("freezer.state", "FROZEN"), ("cgroup.freeze", "1")] {
        match fs::read_to_string(path.join(file)) {
            Ok(text) => return Ok(text.trim() == frozen),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => {}
            Err(error) => return Err(error).doing(|| format!("read {}", path.join(file).display())),
        }
    }
    Ok(false)
}

/// Writes one file of a cgroup, in one call as the kernel wants it.
fn put(directory: &Path, file: &str, value: &str) -> Result<()> {
    let path = directory.join(file);
    let file = fs::OpenOptions::new().write(true).open(&path);
    let written = file.and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
    written.doing(|| format!("write {value:?} to {}", path.display()))
}

impl Membership {
    /// Sets limits: each where its controller lives, and an error where it lives nowhere.
    pub fn apply(&self, resources: &LinuxResources) -> Result<()> {
        let (one, two) = (v1::settings(resources), v2::settings(resources));
        for setting in one.iter().chain(&two) {
            // The same limit in the words of the other version: one of both must be had.
            let names = match setting.controller {
                "blkio" | "io" => ["blkio", "io"],
                other => [other, other],
            };
            if !names.iter().any(|name| self.directory(name).is_some()) {
                return Err(Error::unsupported(
                    format!("a limit of linux.resources ({} = {})", setting.file, setting.value),
                    format!(
                        "no cgroup of ours has the controller {:?}; have it delegated to this user (Delegate= in systemd.resource-control(5)), \
                         run as root, or leave the limit out",
                        setting.controller
                    ),
                ));
            }
        }
        for (unified, settings) in [(false, one), (true, two)] {
            for setting in settings {
                let directory = self.directory(setting.controller).filter(|directory| directory.unified == unified);
                if let Some(directory) = directory {
                    self.set(directory, &setting)?;
                }
            }
        }
        devices::apply(self, resources.devices().as_deref().unwrap_or_default())
    }

    fn set(&self, directory: &Directory, setting: &Setting) -> Result<()> {
        match put(&directory.path, &setting.file, &setting.value) {
            // Memory and swap bound each other: whichever would cross the other for a moment goes second.
            Err(Error::Os { source, .. })
                if setting.file == "memory.limit_in_bytes" && source.raw_os_error() == Some(libc::EINVAL) =>
            {
                put(&directory.path, "memory.memsw.limit_in_bytes", "-1")?;
                put(&directory.path, &setting.file, &setting.value)
            }
            outcome => outcome,
        }
    }

    /// The directory that has a controller.
    pub fn directory(&self, controller: &str) -> Option<&Directory> {
        self.0.iter().find(|directory| directory.controllers.iter().any(|name| name == controller))
    }

    /// The directory of version 2.
    pub fn unified(&self) -> Option<&Directory> {
        self.0.iter().find(|directory| directory.unified)
    }

    /// Brings in a process that could not be born there: see `entrance` for why that is worth while.
    pub fn join_unified(&self, pid: i32) -> Result<()> {
        self.unified().map_or(Ok(()), |directory| put(&directory.path, "cgroup.procs", &pid.to_string()))
    }

    /// Everybody inside.
    pub fn processes(&self) -> Result<Vec<i32>> {
        match self.freezer().or(self.0.first()) {
            Some(directory) => processes(&directory.path),
            None => Ok(Vec::new()),
        }
    }

    /// Where freezing is done.
    fn freezer(&self) -> Option<&Directory> {
        self.directory("freezer").or_else(|| self.unified())
    }

    /// Whether everybody inside is frozen.
    pub fn frozen(&self) -> Result<bool> {
        self.freezer().map_or(Ok(false), |directory| is_frozen(&directory.path))
    }

    /// Freezes or thaws everybody, and waits until it is so.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let Some(directory) = self.freezer() else {
            return Err(Error::unsupported("pausing this container", "it has no cgroup with a freezer"));
        };
        let (file, value) = match (directory.unified, frozen) {
            (false, true) => ("freezer.state", "FROZEN"),
            (false, false) => ("freezer.state", "THAWED"),
            (true, true) => ("cgroup.freeze", "1"),
            (true, false) => ("cgroup.freeze", "0"),
        };
        for _ in 0..FREEZE_ATTEMPTS_MAX {
            // Written again each time: a process that is born while version 1 freezes can be missed.
            put(&directory.path, file, value)?;
            if self.frozen_whole(directory)? == frozen {
                return Ok(());
            }
            std::thread::sleep(FREEZE_PAUSE);
        }
        if frozen {
            put(&directory.path, file, if directory.unified { "0" } else { "THAWED" })?;
        }
        Err(Error::invalid(
            format!("cgroup {}", directory.path.display()),
            "does not freeze; a process in it may hang in the kernel",
        ))
    }

    fn frozen_whole(&self, directory: &Directory) -> Result<bool> {
        if !directory.unified {
            return is_frozen(&directory.path);
        }
        let path = directory.path.join("cgroup.events");
        let text = fs::read_to_string(&path).doing(|| format!("read {}", path.display()))?;
        Ok(text.lines().any(|line| line == "frozen 1"))
    }

    /// Whether the kernel has killed somebody inside for want of memory.
    pub fn killed_for_memory(&self) -> bool {
        let Some(directory) = self.directory("memory") else { return false };
        let file = if directory.unified { "memory.events" } else { "memory.oom_control" };
        let text = fs::read_to_string(directory.path.join(file)).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.trim().parse::<u64>().ok()).is_some_and(|count| count > 0)
    }

    /// Removes the directories with all below them. Whoever is still inside is killed.
    pub fn remove(&self) -> Result<()> {
        for directory in &self.0 {
            remove(&directory.path)?;
        }
        Ok(())
    }
}

fn remove(path: &Path) -> Result<()> {
    for attempt in 1.. {
        let busy = match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && attempt < REMOVE_ATTEMPTS_MAX => error,
            Err(error) => return Err(error).doing(|| format!("remove cgroup {}", path.display())),
        };
        log::debug(&format!("remove cgroup {}: {busy}", path.display()));
        for below in directories(path)? {
            remove(&below)?;
        }
        for pid in processes(path)?.into_iter().filter_map(rustix::process::Pid::from_raw) {
            // It may have ended by itself in the meantime.
            if let Err(errno) = rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
                log::debug(&format!("kill {pid:?}: {errno}"));
            }
        }
        if attempt > 1 {
            std::thread::sleep(REMOVE_PAUSE);
        }
    }
    Ok(())
}
