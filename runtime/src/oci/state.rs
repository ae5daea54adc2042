//! The state directory: `ROOT/ID/{state.json, config.json, exec.fifo}`, and what it says of a container.
//!
//! Owns the files and their names. Invariant: a file is replaced by one rename, and a process counts as the container's only
//! while its start time is the one that was written down, so that a number given to another process is never signalled.

use super::cgroup::Membership;
use super::{log, spec};
use crate::error::{Doing, Error, Result};
use oci_spec::runtime::Spec;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt::{self, Display};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

const STATE: &str = "state.json";
/// Where init waits for `start`.
pub const FIFO: &str = "exec.fifo";

/// Longer names would not fit beside what cgroups and file names add to them.
const ID_BYTES_MAX: usize = 1024;

/// What `create` wrote down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Saved {
    /// The release of the specification in config.json.
    pub oci_version: String,
    /// The container's name.
    pub id: String,
    /// Absolute.
    pub bundle: PathBuf,
    /// Absolute.
    pub rootfs: PathBuf,
    /// Init, in the runtime's process namespace; 0 before there is one.
    pub pid: i32,
    /// Clock ticks after boot; 0 before there is an init.
    pub start_time: u64,
    /// RFC 3339.
    pub created: String,
    /// Who created it.
    pub uid: u32,
    /// As in config.json.
    pub annotations: HashMap<String, String>,
    /// The directories of its cgroup.
    pub cgroups: Membership,
}

/// Where a container is in its life. `Paused` is runc's, not the specification's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` has not ended.
    Creating,
    /// Init waits for `start`.
    Created,
    /// The process runs.
    Running,
    /// The process is frozen.
    Paused,
    /// The process has ended.
    Stopped,
}

impl Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// The state of the specification, with what runc adds: what `state` and `list` print, and what hooks read.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    oci_version: String,
    id: String,
    /// Where it is in its life.
    pub status: Status,
    /// Init; 0 when there is none.
    pub pid: i32,
    bundle: PathBuf,
    rootfs: PathBuf,
    /// RFC 3339.
    pub created: String,
    owner: String,
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    annotations: HashMap<String, String>,
}

/// The directory of all containers.
#[derive(Debug, Clone)]
pub struct Root(PathBuf);

/// One container: its directory and what was written down.
#[derive(Debug)]
pub struct Container {
    dir: PathBuf,
    /// What was written down.
    pub saved: Saved,
}

impl Root {
    /// The given directory, else the place that callers expect: /run for the host's root, the user's runtime directory otherwise.
    pub fn new(given: Option<PathBuf>) -> Self {
        let name = "lamina-oci";
        match (given, std::env::var_os("XDG_RUNTIME_DIR")) {
            (Some(path), _) => Root(path),
            (None, Some(runtime)) if rootless() && !runtime.is_empty() => Root(Path::new(&runtime).join(name)),
            (None, _) if rootless() => Root(format!("/tmp/{name}-{}", rustix::process::geteuid().as_raw()).into()),
            (None, _) => Root(Path::new("/run").join(name)),
        }
    }

    /// Takes the name. The directory that is made is the claim: two creators cannot both have it.
    pub fn claim(&self, id: &str) -> Result<Claim> {
        check_id(id)?;
        DirBuilder::new().recursive(true).mode(0o711).create(&self.0).doing(|| format!("make {}", self.0.display()))?;
        self.check_owner()?;
        let dir = self.0.join(id);
        match DirBuilder::new().mode(0o711).create(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Error::Exists(id.into())),
            outcome => outcome.doing(|| format!("make {}", dir.display())).map(|()| Claim { dir, keep: false }),
        }
    }

    /// In a directory of somebody else's, which he could have made at our place in /tmp, he could exchange what we write.
    fn check_owner(&self) -> Result<()> {
        let owner = fs::metadata(&self.0).doing(|| format!("look at {}", self.0.display()))?.uid();
        match owner == rustix::process::geteuid().as_raw() || owner == 0 {
            true => Ok(()),
            false => Err(Error::invalid(
                self.0.display().to_string(),
                format!("belongs to user {owner}; name another directory with --root"),
            )),
        }
    }

    /// The container of that name.
    pub fn load(&self, id: &str) -> Result<Container> {
        check_id(id)?;
        let dir = self.0.join(id);
        let path = dir.join(STATE);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NoSuchContainer(id.into())),
            Err(error) => Err(error).doing(|| format!("read {}", path.display())),
            Ok(bytes) => {
                let saved = serde_json::from_slice(&bytes)
                    .map_err(|source| Error::Json { place: path.display().to_string(), source })?;
                Ok(Container { dir, saved })
            }
        }
    }

    /// All containers, by name.
    pub fn list(&self) -> Result<Vec<Container>> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            outcome => outcome.doing(|| format!("list {}", self.0.display()))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.doing(|| format!("list {}", self.0.display()))?.file_name();
            match self.load(&name.to_string_lossy()) {
                Ok(container) => found.push(container),
                Err(Error::NoSuchContainer(_)) => {}
                Err(error) => log::warn(&format!("{}: {error}", name.display())),
            }
        }
        found.sort_by(|one, other| one.saved.id.cmp(&other.saved.id));
        Ok(found)
    }

    /// Where a container of that name keeps its files, whole or not.
    pub fn dir(&self, id: &str) -> Result<PathBuf> {
        check_id(id)?;
        Ok(self.0.join(id))
    }
}

/// A name that was taken and is given back on drop unless the container came to be.
#[derive(Debug)]
pub struct Claim {
    dir: PathBuf,
    keep: bool,
}

impl Claim {
    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Leaves the directory to the container.
    pub fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = fs::remove_dir_all(&self.dir)
        {
            log::warn(&format!("remove {}: {error}", self.dir.display()));
        }
    }
}

impl Saved {
    /// Writes state.json whole.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let bytes = serde_json::to_vec(self).map_err(|source| Error::Json { place: STATE.into(), source })?;
        replace(&dir.join(STATE), &bytes)
    }

    /// What hooks read and `state` prints.
    pub fn state(&self, status: Status) -> State {
        State {
            oci_version: self.oci_version.clone(),
            id: self.id.clone(),
            status,
            pid: if status == Status::Stopped { 0 } else { self.pid },
            bundle: self.bundle.clone(),
            rootfs: self.rootfs.clone(),
            created: self.created.clone(),
            owner: owner(self.uid),
            annotations: self.annotations.clone(),
        }
    }
}

impl Container {
    /// Where its files lie.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// config.json as it was at `create`.
    pub fn spec(&self) -> Result<Spec> {
        spec::reload(&self.dir)
    }

    /// Where it is in its life, asked of the kernel.
    pub fn status(&self) -> Result<Status> {
        if self.saved.pid == 0 {
            return Ok(Status::Creating);
        }
        if start_time(self.saved.pid) != Some(self.saved.start_time) {
            return Ok(Status::Stopped);
        }
        if self.dir.join(FIFO).exists() {
            return Ok(Status::Created);
        }
        Ok(if self.saved.cgroups.frozen()? { Status::Paused } else { Status::Running })
    }

    /// Init by descriptor, if it still is the process that was written down.
    pub fn init(&self) -> Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.saved.pid) else { return Ok(None) };
        let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            outcome => outcome.doing(|| format!("open process {}", self.saved.pid))?,
        };
        // Compared after opening: from here on the descriptor cannot come to mean another process.
        Ok((start_time(self.saved.pid) == Some(self.saved.start_time)).then_some(descriptor))
    }
}

/// When a living process started, in clock ticks after boot. `None` for one that is gone or only waits to be reaped.
///
/// Source: proc_pid_stat(5), fields 3 and 22.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    match fields.next()? {
        "Z" | "X" | "x" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

/// Replaces a file by one rename.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let draft = path.with_file_name(name);
    fs::write(&draft, bytes).doing(|| format!("write {}", draft.display()))?;
    fs::rename(&draft, path).doing(|| format!("write {}", path.display()))
}

/// Whether this is not the host's root: another user, or the root of a user namespace.
pub fn rootless() -> bool {
    if !rustix::process::geteuid().is_root() {
        return true;
    }
    let in_user_namespace = fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| !map.split_ascii_whitespace().eq(["0", "0", "4294967295"]));
    in_user_namespace && std::env::var_os("USER").is_none_or(|user| user != "root")
}

fn check_id(id: &str) -> Result<()> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    match !id.is_empty() && id.len() <= ID_BYTES_MAX && id.bytes().all(fits) && id != "." && id != ".." {
        true => Ok(()),
        false => {
            Err(Error::invalid("container ID", format!("invalid id format: {id:?} may have letters, digits and _+-.")))
        }
    }
}

fn owner(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let wanted = uid.to_string();
    let line = users.lines().find(|line| line.split(':').nth(2) == Some(&wanted));
    line.and_then(|line| line.split(':').next()).map_or(wanted.clone(), str::to_owned)
}
