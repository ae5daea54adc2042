//! The directories of one union in a temporary directory. It owns where they lie and how an option string names them. Invariant: the
//! lowers are built once; what a test compares against afterwards is the raw tree read right then.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::literal::{Entry, plant, set_mtime};
use crate::tree::{Tree, View};

/// Lowers (topmost first), upper, work and mountpoint.
pub struct Layers {
    /// The lower layers, topmost first.
    pub lowers: Vec<PathBuf>,
    /// The writable layer.
    pub upper: PathBuf,
    /// The work directory.
    pub work: PathBuf,
    /// Where the union is mounted.
    pub merged: PathBuf,
    before: Vec<Tree>,
    _home: Option<TempDir>,
}

impl Layers {
    /// When every directory made here says that it was changed last, in seconds; a lower with something in it says otherwise.
    pub const MADE: i64 = 1_000_000;

    /// Builds lower layers from literals, topmost first, in a fresh temporary directory.
    pub fn new(lowers: &[&[Entry]]) -> Layers {
        let home = tempfile::Builder::new().prefix("lamina-").tempdir().expect("temporary directory");
        let mut layers = Layers::within(home.path(), lowers);
        layers._home = Some(home);
        layers
    }

    /// The same, in a directory of the caller's.
    pub fn within(home: &Path, lowers: &[&[Entry]]) -> Layers {
        open_to_all(home);
        let make = |name: &str| {
            let path = home.join(name);
            make_dir(&path);
            path
        };
        let built: Vec<PathBuf> = (0..lowers.len()).map(|at| make(&format!("lower{at}"))).collect();
        for (path, entries) in built.iter().zip(lowers) {
            plant(path, entries);
        }
        let before = built.iter().map(|path| Tree::read(path)).collect();
        Layers { lowers: built, upper: make("upper"), work: make("work"), merged: make("merged"), before, _home: None }
    }

    /// The directory that holds all of them.
    pub fn home(&self) -> &Path {
        self.merged.parent().unwrap_or(Path::new("/"))
    }

    /// `lowerdir=...`, `upperdir=...` and `workdir=...`, comma separated.
    pub fn options(&self) -> String {
        format!("{},upperdir={},workdir={}", self.lower_option(), self.upper.display(), self.work.display())
    }

    /// `lowerdir=...` alone: a read-only mount.
    pub fn lower_option(&self) -> String {
        let lowers: Vec<_> = self.lowers.iter().map(|path| path.display().to_string()).collect();
        format!("lowerdir={}", lowers.join(":"))
    }

    /// Panics unless every lower layer is exactly as it was built, times and marks included.
    #[track_caller]
    pub fn assert_lowers_untouched(&self) {
        for (path, before) in self.lowers.iter().zip(&self.before) {
            before.assert_same(&Tree::read(path), View::ALL);
        }
    }

    /// Takes what the lowers hold now as what they must still hold later; for tests that build them by hand.
    pub fn note_lowers(&mut self) {
        self.before = self.lowers.iter().map(|path| Tree::read(path)).collect();
    }

    /// Puts upper and work on another filesystem.
    pub fn move_upper_to(&mut self, dir: &Path) {
        (self.upper, self.work) = (dir.join("upper"), dir.join("work"));
        for path in [&self.upper, &self.work] {
            make_dir(path);
        }
    }

    /// The names in `work/work`, where copies are built: none, as long as nothing is being copied.
    pub fn names_in_work(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.work.join("work")) else { return Vec::new() };
        entries.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// The raw upper directory as a tree.
    pub fn upper_tree(&self) -> Tree {
        Tree::read(&self.upper)
    }
}

/// Mode 0755 under every umask, and a time that is no clock's: the upper's is that of a mount's root, and two mounts are compared.
fn make_dir(path: &Path) {
    std::fs::create_dir(path).unwrap_or_else(|error| panic!("mkdir {}: {error}", path.display()));
    open_to_all(path);
    set_mtime(path, Layers::MADE).unwrap_or_else(|error| panic!("times of {}: {error}", path.display()));
}

/// A temporary directory is 0700; tests that change user must get through it.
fn open_to_all(home: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(home, std::fs::Permissions::from_mode(0o755)).expect("chmod of a directory just made");
}
