//! Who is who in a user namespace.
//!
//! Owns the maps and the two ways to write them: directly, where the kernel lets us, and by newuidmap(1) and newgidmap(1), which
//! know which ids the administrator gave to the user.

use super::log;
use crate::error::{Doing, Error, Result};
use oci_spec::runtime::{Linux, LinuxIdMapping};
use rustix::process::{getegid, geteuid};
use std::fs;
use std::io;
use std::process::{Command, Stdio};

/// Both maps of `linux`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMaps {
    uids: Vec<LinuxIdMapping>,
    gids: Vec<LinuxIdMapping>,
}

impl IdMaps {
    /// The maps of config.json.
    pub fn of(linux: &Linux) -> Self {
        Self::new(linux.uid_mappings().as_deref(), linux.gid_mappings().as_deref())
    }

    /// Maps that stand elsewhere.
    pub fn new(uids: Option<&[LinuxIdMapping]>, gids: Option<&[LinuxIdMapping]>) -> Self {
        IdMaps { uids: uids.unwrap_or_default().to_vec(), gids: gids.unwrap_or_default().to_vec() }
    }

    /// A user namespace without maps has no owner of anything.
    pub fn check(&self) -> Result<()> {
        match (self.uids.is_empty(), self.gids.is_empty()) {
            (false, false) => Ok(()),
            (true, _) => Err(Error::invalid("linux.uidMappings", "a new user namespace needs at least one mapping")),
            (_, true) => Err(Error::invalid("linux.gidMappings", "a new user namespace needs at least one mapping")),
        }
    }

    /// Whether the user and the group of that number inside exist.
    pub fn has(&self, uid: u32, gid: u32) -> bool {
        let within = |map: &[LinuxIdMapping], id: u32| {
            map.iter()
                .any(|range| (range.container_id()..range.container_id().saturating_add(range.size())).contains(&id))
        };
        within(&self.uids, uid) && within(&self.gids, gid)
    }

    /// The host's id of the user that is 0 inside.
    pub fn host_root(&self) -> Option<(u32, u32)> {
        let zero =
            |map: &[LinuxIdMapping]| map.iter().find(|range| range.container_id() == 0).map(LinuxIdMapping::host_id);
        Some((zero(&self.uids)?, zero(&self.gids)?))
    }

    /// Writes both maps for a process that has just come into its user namespace.
    pub fn write(&self, pid: i32) -> Result<()> {
        if self.is_own() && !geteuid().is_root() {
            // The kernel lets a user map himself, if he gives up to drop groups, which could be what keeps him out somewhere.
            put(pid, "setgroups", "deny").doing(|| "deny setgroups to the container".into())?;
        }
        write_map(pid, "uid_map", "newuidmap", &self.uids, self.is_own())?;
        write_map(pid, "gid_map", "newgidmap", &self.gids, self.is_own())
    }

    /// Whether only the caller himself is mapped.
    fn is_own(&self) -> bool {
        let single =
            |map: &[LinuxIdMapping], id: u32| matches!(map, [range] if range.size() == 1 && range.host_id() == id);
        single(&self.uids, geteuid().as_raw()) && single(&self.gids, getegid().as_raw())
    }
}

fn write_map(pid: i32, file: &str, program: &str, map: &[LinuxIdMapping], own: bool) -> Result<()> {
    let line = |range: &LinuxIdMapping| [range.container_id(), range.host_id(), range.size()].map(|id| id.to_string());
    let lines: Vec<[String; 3]> = map.iter().map(line).collect();
    let text: String = lines.iter().map(|line| line.join(" ") + "\n").collect();
    if own || geteuid().is_root() {
        match put(pid, file, &text) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !own => {
                log::debug(&format!("{file}: {error}; trying {program}"));
            }
            outcome => return outcome.doing(|| format!("write {file} {:?}", text.trim_end())),
        }
    }
    let mut command = Command::new(program);
    command.arg(pid.to_string()).args(lines.as_flattened()).stdin(Stdio::null()).stdout(Stdio::null());
    let output = command.output().doing(|| format!("start {program}, of the package uidmap"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::invalid(
            format!("{program} {}", text.trim_end()),
            format!("{}; see subuid(5)", String::from_utf8_lossy(&output.stderr).trim()),
        )),
    }
}

fn put(pid: i32, file: &str, text: &str) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/{file}"), text)
}
