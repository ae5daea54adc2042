//! The cgroup hierarchies of this host, as they are mounted here.
//!
//! Invariant: found in /proc/self/mountinfo, never guessed from /sys/fs/cgroup, which may be an ordinary tmpfs in places.

use super::super::rootfs::unescape;
use crate::error::{Doing, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its mount point.
    pub point: PathBuf,
    /// Which cgroup the mount point shows.
    pub root: PathBuf,
    /// Of version 1: its controllers and, with `name=` before it, its name.
    pub controllers: Vec<String>,
    /// Version 2.
    pub unified: bool,
    /// The cgroup of this process in it.
    pub own: PathBuf,
}

/// All hierarchies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout(pub Vec<Hierarchy>);

impl Layout {
    /// Asks the kernel.
    pub fn detect() -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).doing(|| format!("read {path}"));
        Ok(Self::parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?))
    }

    /// Sources: proc_pid_mountinfo(5); /proc/PID/cgroup in cgroups(7).
    fn parse(mounts: &str, membership: &str) -> Self {
        let mut found: Vec<Hierarchy> = Vec::new();
        for line in mounts.lines() {
            let Some((place, kind)) = line.split_once(" - ") else { continue };
            let (place, kind): (Vec<&str>, Vec<&str>) = (place.split(' ').collect(), kind.split(' ').collect());
            let (&[_, _, _, root, point, ..], &[kind, _, options, ..]) = (place.as_slice(), kind.as_slice()) else {
                continue;
            };
            let unified = kind == "cgroup2";
            let controllers = match kind {
                "cgroup" => controllers(options),
                "cgroup2" => Vec::new(),
                _ => continue,
            };
            let (root, point) = (unescape(root), unescape(point));
            // Mounted twice: the first one is the host's usual place.
            let known = found.iter().any(|other| other.unified == unified && other.controllers == controllers);
            if known {
                continue;
            }
            let own = own(membership, &controllers, unified);
            found.push(Hierarchy { point, root, controllers, unified, own });
        }
        Layout(found)
    }

    /// Whether version 2 is all there is.
    pub fn is_unified(&self) -> bool {
        self.0.iter().all(|hierarchy| hierarchy.unified)
    }
}

/// Options of the superblock that are no controllers.
const NO_CONTROLLERS: [&str; 6] = ["rw", "ro", "clone_children", "xattr", "noprefix", "favordynmods"];

fn controllers(options: &str) -> Vec<String> {
    let words = options.split(',').filter(|word| !NO_CONTROLLERS.contains(word) && !word.starts_with("release_agent"));
    words.map(str::to_owned).collect()
}

fn own(membership: &str, controllers: &[String], unified: bool) -> PathBuf {
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(names), Some(path)) = (fields.next(), fields.next()) else { continue };
        let same = if unified {
            names.is_empty()
        } else {
            names.split(',').any(|name| controllers.iter().any(|own| own == name))
        };
        if same {
            return path.into();
        }
    }
    "/".into()
}

impl Hierarchy {
    /// The directory of this process's own cgroup.
    pub fn own_directory(&self) -> PathBuf {
        self.point.join(relative(self.own.strip_prefix(&self.root).unwrap_or(&self.own)))
    }
}

/// The path without the slash in front.
pub fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_hosts_have_both_versions() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
                      40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                      41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw - cgroup2 cgroup2 rw\n\
                      99 31 0:29 / /elsewhere rw,relatime - cgroup cgroup rw,cpu,cpuacct\n";
        let layout = Layout::parse(mounts, "2:cpu,cpuacct:/a\n1:name=systemd:/b\n0::/c\n");
        let found: Vec<_> =
            layout.0.iter().map(|one| (one.point.to_str().unwrap(), one.own.to_str().unwrap())).collect();
        assert_eq!(
            found,
            [("/sys/fs/cgroup/cpu,cpuacct", "/a"), ("/sys/fs/cgroup/systemd", "/b"), ("/sys/fs/cgroup/uni fied", "/c")]
        );
        assert!(!layout.is_unified());
        assert_eq!(layout.0[0].controllers, ["cpu", "cpuacct"]);
    }
}
