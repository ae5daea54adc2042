//! What an upper directory changes of the layers below it, by name: what `docker diff` shows.
//!
//! Owns the comparison. Must not mount: the upper directory is read as it is, also while a server writes to it. Invariant: a name is said to
//! change only if somebody who looks at the union sees another thing than without the upper directory; a directory also for what changes
//! below it.

use super::{Attributes, InodeNumber, Kind, ListedEntry, Union};
use crate::error::Result;
use crate::layer::{DirMarks, Entry, Layer, LayerId, LayerName, Mountpoints, OverrideStat, list};
use crate::sys::open;
use crate::sys::stat::Stat;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// What happened to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is another file, has other attributes, or something below it changed.
    Changed,
    /// It is gone; nothing is said of what lay below it.
    Deleted,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// From the root on, which is `/`.
    pub path: PathBuf,
    /// What happened.
    pub kind: ChangeKind,
}

/// Compares the directory `upper` with the union of the layers `below`; none where there are none. In the order of the paths, without
/// `mountpoints`.
///
/// # Errors
/// What cannot be read; a file that went while it was looked at is passed over.
pub fn changes(
    upper: &Path,
    below: Option<&Union>,
    owners: OverrideStat,
    mountpoints: &Mountpoints,
) -> Result<Vec<Change>> {
    let layer = Layer::new(LayerId::UPPER, open::open_root(upper)?, owners != OverrideStat::Off)?;
    let mut comparison = Comparison { layer: &layer, below, mountpoints, path: PathBuf::from("/"), found: Vec::new() };
    let marks = layer.dir_marks(layer.root())?;
    comparison.dir(layer.root(), marks, below.map(|_| InodeNumber::ROOT), marks.opaque)?;
    comparison.found.sort_unstable();
    Ok(comparison.found)
}

struct Comparison<'a> {
    layer: &'a Layer,
    below: Option<&'a Union>,
    mountpoints: &'a Mountpoints,
    path: PathBuf,
    found: Vec<Change>,
}

impl Comparison<'_> {
    /// A directory of the upper layer, and the one of that name below. `covered`: an opaque directory hides that one, so what is not
    /// here again is gone.
    fn dir(&mut self, dir: BorrowedFd<'_>, marks: DirMarks, below: Option<InodeNumber>, covered: bool) -> Result<()> {
        for name in names(dir)? {
            let said = match self.layer.entry(dir, marks, &name) {
                Err(error) if error.is(libc::ENOENT) => continue,
                said => said?,
            };
            let old = match (self.below, below) {
                (Some(union), Some(parent)) => union.lookup(parent, &name)?,
                _ => None,
            };
            self.path.push(&name);
            // In the place of something that was removed it stands for that change.
            if old.is_some() || !self.mountpoints.hold(self.layer, dir, &name, &self.path, &said)? {
                self.entry(dir, &name, said, old, covered)?;
            }
            self.path.pop();
            if let (Some(union), Some(old)) = (self.below, old) {
                union.forget(old.number, 1);
            }
        }
        match below {
            Some(old) if covered => self.gone(old, dir, marks),
            _ => Ok(()),
        }
    }

    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        said: Entry,
        old: Option<Attributes>,
        covered: bool,
    ) -> Result<()> {
        match (said, old) {
            (Entry::Absent, _) | (Entry::Whiteout, None) => {}
            (Entry::Whiteout, Some(_)) => self.note(ChangeKind::Deleted),
            (Entry::Leaf(_), None) => self.note(ChangeKind::Added),
            (Entry::Leaf(_), Some(_)) => self.note(ChangeKind::Changed),
            (Entry::Dir { stat, marks }, old) => {
                let child = match open::open_dir(dir, name) {
                    Err(error) if error.is(libc::ENOENT) => return Ok(()),
                    child => child?,
                };
                self.directory(child.as_fd(), (&stat, marks), old, covered || marks.opaque)?;
            }
        }
        Ok(())
    }

    fn directory(
        &mut self,
        dir: BorrowedFd<'_>,
        (stat, marks): (&Stat, DirMarks),
        old: Option<Attributes>,
        covered: bool,
    ) -> Result<()> {
        let Some(old) = old else {
            self.note(ChangeKind::Added);
            return self.dir(dir, marks, None, covered);
        };
        let was_dir = Kind::from_mode(old.mode) == Kind::Directory;
        let before = self.found.len();
        self.dir(dir, marks, was_dir.then_some(old.number), covered)?;
        let same = (old.mode, old.uid, old.gid, old.mtime) == (stat.mode, stat.uid, stat.gid, stat.mtime);
        if !same || covered || self.found.len() > before {
            self.note(ChangeKind::Changed);
        }
        Ok(())
    }

    /// The names of a directory below that an opaque one does not have.
    fn gone(&mut self, old: InodeNumber, dir: BorrowedFd<'_>, marks: DirMarks) -> Result<()> {
        let Some(union) = self.below else { return Ok(()) };
        let listing = union.read_dir(old, 0)?;
        let is_name = |entry: &&ListedEntry| ![".", ".."].iter().any(|dots| *entry.name == **dots);
        for entry in listing.entries.iter().filter(is_name) {
            // A whiteout was met in the loop over this layer's names.
            if self.layer.entry(dir, marks, &entry.name)? == Entry::Absent {
                self.path.push(&*entry.name);
                self.note(ChangeKind::Deleted);
                self.path.pop();
            }
        }
        Ok(())
    }

    fn note(&mut self, kind: ChangeKind) {
        self.found.push(Change { path: self.path.clone(), kind });
    }
}

/// The names that a layer's directory speaks of.
fn names(dir: BorrowedFd<'_>) -> Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for entry in list(dir)? {
        if let LayerName::Plain(name) | LayerName::Whiteout(name) = LayerName::parse(&entry.name) {
            names.insert(name.to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::union::Config;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    /// A directory for the lower layers and one for the upper.
    fn compare(lowers: &[&dyn Fn(&Path)], upper: impl Fn(&Path)) -> Vec<String> {
        let home = tempfile::tempdir().unwrap();
        let mut layers = Vec::new();
        for (at, fill) in lowers.iter().enumerate() {
            let layer = home.path().join(at.to_string());
            fs::create_dir(&layer).unwrap();
            fill(&layer);
            layers.insert(0, layer);
        }
        let own = home.path().join("upper");
        fs::create_dir(&own).unwrap();
        upper(&own);
        let below = (!layers.is_empty()).then(|| Union::new(Config::new(layers)).unwrap());
        let found = changes(&own, below.as_ref(), OverrideStat::Off, &Mountpoints::default()).unwrap();
        let letter = |kind| match kind {
            ChangeKind::Added => 'A',
            ChangeKind::Changed => 'C',
            ChangeKind::Deleted => 'D',
        };
        found.iter().map(|change| format!("{} {}", letter(change.kind), change.path.display())).collect()
    }

    fn write(root: &Path, name: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }

    fn base(root: &Path) {
        ["etc/passwd", "etc/motd", "opt/a/x", "opt/a/y", "opt/b", "srv/kept"].iter().for_each(|name| write(root, name));
    }

    #[test]
    fn names_are_added_changed_and_deleted() {
        let found = compare(&[&base], |upper| {
            ["etc/passwd", "etc/.wh.motd", "new/deep/file", ".wh.absent"].iter().for_each(|name| write(upper, name));
            symlink("x", upper.join("link")).unwrap();
        });
        assert_eq!(
            found,
            ["C /etc", "D /etc/motd", "C /etc/passwd", "A /link", "A /new", "A /new/deep", "A /new/deep/file"]
        );
    }

    #[test]
    fn an_opaque_directory_takes_away_what_it_does_not_have_again() {
        let found = compare(&[&base], |upper| {
            ["opt/.wh..wh..opq", "opt/a/y", "opt/c"].iter().for_each(|name| write(upper, name));
        });
        assert_eq!(found, ["C /opt", "C /opt/a", "D /opt/a/x", "C /opt/a/y", "D /opt/b", "A /opt/c"]);
    }

    #[test]
    fn a_directory_in_place_of_a_file_is_changed_and_its_content_new() {
        let found = compare(&[&base], |upper| write(upper, "opt/b/inside"));
        assert_eq!(found, ["C /opt", "C /opt/b", "A /opt/b/inside"]);
        let found = compare(&[&base], |upper| write(upper, "opt/a"));
        assert_eq!(found, ["C /opt", "C /opt/a"]);
    }

    #[test]
    fn a_directory_that_only_leads_to_nothing_new_is_not_named() {
        let stamp = |path: &Path| {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
            fs::File::open(path).unwrap().set_modified(time).unwrap();
        };
        let lower = |root: &Path| {
            base(root);
            stamp(&root.join("srv"));
        };
        let same = |upper: &Path| {
            fs::create_dir(upper.join("srv")).unwrap();
            stamp(&upper.join("srv"));
        };
        assert_eq!(compare(&[&lower], same), Vec::<String>::new());
        let other_mode = |upper: &Path| {
            same(upper);
            fs::set_permissions(upper.join("srv"), fs::Permissions::from_mode(0o700)).unwrap();
        };
        assert_eq!(compare(&[&lower], other_mode), ["C /srv"]);
    }

    #[test]
    fn what_a_layer_in_between_removed_is_new_again() {
        let between = |root: &Path| write(root, "etc/.wh.motd");
        let found = compare(&[&base, &between], |upper| {
            write(upper, "etc/motd");
            write(upper, "opt/.wh.b");
        });
        assert_eq!(found, ["C /etc", "A /etc/motd", "C /opt", "D /opt/b"]);
    }

    #[test]
    fn mountpoints_are_no_change_but_in_the_place_of_something() {
        use crate::layer::{MOUNTPOINT_DIR_MODE, Mountpoint};
        let home = tempfile::tempdir().unwrap();
        let (lower, upper) = (home.path().join("lower"), home.path().join("upper"));
        write(&lower, "sys");
        for name in ["dev", "dev/pts", "sys", "run", "run/in"] {
            fs::create_dir_all(upper.join(name)).unwrap();
            fs::set_permissions(upper.join(name), fs::Permissions::from_mode(MOUNTPOINT_DIR_MODE)).unwrap();
        }
        write(&upper, "run/own");
        let made = ["/dev", "/dev/pts", "/sys", "/run", "/run/in"];
        let made = made.into_iter().map(|name| (PathBuf::from(name), Mountpoint::Directory)).collect();
        let below = Union::new(Config::new(vec![lower])).unwrap();
        let found = changes(&upper, Some(&below), OverrideStat::Off, &made).unwrap();
        let found: Vec<_> = found.iter().map(|change| change.path.to_str().unwrap()).collect();
        assert_eq!(found, ["/run", "/run/own", "/sys"]);
    }

    #[test]
    fn without_layers_below_everything_is_new() {
        assert_eq!(compare(&[], |upper| write(upper, "a/b")), ["A /a", "A /a/b"]);
    }
}
