//! What a runtime made in an upper directory for mounts to stand on: no change that anybody wanted.
//!
//! Owns the question whether a name is still such a place. Must not know who mounts there. Invariant: what holds a byte, an entry of somebody
//! else or other permissions than it was made with is no such place, whatever was noted of it.

use super::lower::{DirMarks, Entry, Layer};
use super::whiteout::LayerName;
use super::work::list;
use crate::error::Result;
use crate::sys::open;
use crate::sys::stat::Stat;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// Permissions of a directory that a mount stands on.
pub const MOUNTPOINT_DIR_MODE: u32 = 0o755;
/// Permissions of a file that a mount stands on.
pub const MOUNTPOINT_FILE_MODE: u32 = 0o644;
/// Permissions, without what a directory hands on to what is made in it.
const PERMISSIONS: u32 = 0o777;

/// What was made for a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mountpoint {
    /// An empty directory, or one with nothing but mountpoints in it.
    Directory,
    /// An empty file.
    File,
}

/// The names, from the root on, under which mountpoints were made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mountpoints(BTreeMap<PathBuf, Mountpoint>);

impl FromIterator<(PathBuf, Mountpoint)> for Mountpoints {
    fn from_iter<I: IntoIterator<Item = (PathBuf, Mountpoint)>>(made: I) -> Self {
        Mountpoints(made.into_iter().collect())
    }
}

impl Mountpoints {
    /// Whether `path`, which is `name` in `dir` of the layer and of which the layer says `said`, is as it was made.
    ///
    /// # Errors
    /// What cannot be read.
    pub(crate) fn hold(
        &self,
        layer: &Layer,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        said: &Entry,
    ) -> Result<bool> {
        match (self.0.get(path), said) {
            (Some(Mountpoint::File), Entry::Leaf(stat)) => Ok(is_as_made(stat)),
            (Some(Mountpoint::Directory), Entry::Dir { stat, marks }) => {
                let kept = stat.mode & PERMISSIONS == MOUNTPOINT_DIR_MODE && !marks.opaque;
                Ok(kept && self.hold_all(layer, open::open_dir(dir, name)?.as_fd(), *marks, path)?)
            }
            _ => Ok(false),
        }
    }

    fn hold_all(&self, layer: &Layer, dir: BorrowedFd<'_>, marks: DirMarks, path: &Path) -> Result<bool> {
        for entry in list(dir)? {
            let name = match LayerName::parse(&entry.name) {
                LayerName::Plain(name) => name,
                LayerName::Bookkeeping => continue,
                LayerName::Whiteout(_) | LayerName::Opaque => return Ok(false),
            };
            let said = layer.entry(dir, marks, name)?;
            if !self.hold(layer, dir, name, &path.join(name), &said)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn is_as_made(stat: &Stat) -> bool {
    let permissions = stat.mode & PERMISSIONS;
    stat.format() == libc::S_IFREG && stat.size == 0 && stat.nlink == 1 && permissions == MOUNTPOINT_FILE_MODE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{LayerId, OverrideStat, diff};
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    /// An upper directory with `/dev`, `/run/lock/x` and `/etc/hosts`, all of them made for mounts, `/etc` among them.
    fn made() -> (tempfile::TempDir, Mountpoints) {
        let home = tempfile::tempdir().unwrap();
        for name in ["dev", "run", "run/lock", "run/lock/x", "etc"] {
            let path = home.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(MOUNTPOINT_DIR_MODE)).unwrap();
        }
        let hosts = home.path().join("etc/hosts");
        fs::write(&hosts, "").unwrap();
        fs::set_permissions(hosts, fs::Permissions::from_mode(MOUNTPOINT_FILE_MODE)).unwrap();
        let dirs = ["/dev", "/run", "/run/lock", "/run/lock/x", "/etc"].map(|name| (name, Mountpoint::Directory));
        let all = dirs.into_iter().chain([("/etc/hosts", Mountpoint::File)]);
        (home, all.map(|(name, kind)| (PathBuf::from(name), kind)).collect())
    }

    /// What is left to see in the archive.
    fn seen(upper: &Path, mountpoints: &Mountpoints) -> Vec<String> {
        let mut bytes = Vec::new();
        diff(open::open_root(upper).unwrap().as_fd(), OverrideStat::Off, mountpoints, &mut bytes).unwrap();
        let mut archive = crate::layer::Archive::new(bytes.as_slice());
        std::iter::from_fn(|| archive.next_entry().unwrap())
            .map(|entry| format!("/{}", String::from_utf8(entry.path).unwrap().trim_end_matches('/')))
            .filter(|name| name != "/.")
            .collect()
    }

    #[test]
    fn what_is_as_it_was_made_is_seen_by_nobody() {
        let (home, mountpoints) = made();
        assert_eq!(seen(home.path(), &mountpoints), Vec::<String>::new());
        assert_eq!(seen(home.path(), &Mountpoints::default()).len(), 6);
        let layer = Layer::new(LayerId::UPPER, open::open_root(home.path()).unwrap(), false).unwrap();
        let root = Entry::Dir { stat: layer.stat_fd(layer.root()).unwrap(), marks: DirMarks::default() };
        assert!(!mountpoints.hold(&layer, layer.root(), OsStr::new("."), Path::new("/"), &root).unwrap(), "not noted");
    }

    #[test]
    fn a_file_of_somebody_shows_the_directories_above_it_and_no_others() {
        let (home, mountpoints) = made();
        fs::write(home.path().join("run/lock/own"), "").unwrap();
        assert_eq!(seen(home.path(), &mountpoints), ["/run", "/run/lock", "/run/lock/own"]);
    }

    #[test]
    fn whatever_differs_from_what_was_made_is_seen() {
        let (home, mountpoints) = made();
        fs::write(home.path().join("etc/hosts"), "127.0.0.1 here\n").unwrap();
        fs::set_permissions(home.path().join("dev"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::remove_dir(home.path().join("run/lock/x")).unwrap();
        fs::write(home.path().join("run/lock/x"), "").unwrap();
        assert_eq!(seen(home.path(), &mountpoints), ["/dev", "/etc", "/etc/hosts", "/run", "/run/lock", "/run/lock/x"]);
    }

    #[test]
    fn a_directory_that_hides_one_below_is_seen() {
        let (home, mountpoints) = made();
        fs::write(home.path().join("dev/.wh..wh..opq"), "").unwrap();
        assert_eq!(seen(home.path(), &mountpoints), ["/dev", "/dev/.wh..wh..opq"]);
    }
}
