//! What the micro-benchmarks share: layers on disk and a `Union` over them, in this process.
//!
//! Invariant: a configuration comes from an option string, as for a mount, so that it has every default that users get.

// Each benchmark is a crate of its own and uses a part of this.
#![allow(dead_code, reason = "shared by several crates")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lamina_fs::options::{Environment, Invocation, Options, ProgramName};
use lamina_fs::union::{Caller, Config, InodeNumber, Union};
use tempfile::TempDir;

/// Descriptors that a union in a benchmark may hold.
const DESCRIPTORS_MAX: usize = 800;

/// Who asks.
pub const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022 };

/// Directories of one stack, removed on drop.
pub struct Layers {
    home: TempDir,
    depth: usize,
}

impl Layers {
    /// `depth` empty lower layers, an upper and a work directory below `parent`.
    pub fn new(parent: &Path, depth: usize) -> Layers {
        let home = tempfile::Builder::new().prefix("lamina-micro-").tempdir_in(parent).expect("temporary directory");
        let layers = Layers { home, depth };
        (0..depth).for_each(|layer| fs::create_dir(layers.lower(layer)).expect("mkdir"));
        for name in ["upper", "work"] {
            fs::create_dir(layers.home.path().join(name)).expect("mkdir");
        }
        layers
    }

    /// Root of a lower layer, 0 on top.
    pub fn lower(&self, layer: usize) -> PathBuf {
        self.home.path().join(layer.to_string())
    }

    /// A path beside the layers.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// An upper layer that holds nothing.
    pub fn empty_upper(&self) {
        for name in ["upper", "work"] {
            let path = self.home.path().join(name);
            fs::remove_dir_all(&path).and_then(|()| fs::create_dir(&path)).expect("an empty directory");
        }
    }

    /// The lower layers alone.
    pub fn read_only(&self) -> Config {
        config(&format!("lowerdir={}", self.lower_list()))
    }

    /// The lower layers alone, with an index of them.
    pub fn indexed(&self) -> Config {
        let index = self.beside("index");
        lamina_fs::union::build_index(&self.read_only(), &index, |_| ()).expect("build an index");
        config(&format!("lowerdir={},index={}", self.lower_list(), index.display()))
    }

    /// All of it.
    pub fn writable(&self) -> Config {
        let at = self.home.path().display();
        config(&format!("lowerdir={},upperdir={at}/upper,workdir={at}/work", self.lower_list()))
    }

    fn lower_list(&self) -> String {
        let paths: Vec<String> = (0..self.depth).map(|layer| self.lower(layer).display().to_string()).collect();
        paths.join(":")
    }
}

fn config(words: &str) -> Config {
    let environment = Environment { name: ProgramName::LaminaFs, root: true, dot_whiteouts: false };
    let arguments: [OsString; 3] = ["-o".into(), words.into(), "/".into()];
    match Options::parse(arguments, &environment).expect("options") {
        Invocation::Mount(options) => {
            // An unknown word is only a warning, and a benchmark without its index would measure something else.
            let understood = options.to_option_string().to_string_lossy().contains("index=");
            assert!(understood || !words.contains("index="), "this lamina-fs does not know index=");
            options.union(DESCRIPTORS_MAX)
        }
        _ => panic!("`-o {words} /` is a mount"),
    }
}

/// The number of a name; the lookup that it counts is never forgotten.
pub fn number(union: &Union, parent: InodeNumber, name: &str) -> InodeNumber {
    union.lookup(parent, OsStr::new(name)).expect("lookup").unwrap_or_else(|| panic!("{name} exists")).number
}

/// A filesystem in a file, mounted through a loop device and taken away on drop.
pub struct Image {
    home: TempDir,
}

impl Image {
    /// An XFS with reflinks; none without root and mkfs.xfs.
    pub fn xfs(size_mib: u64) -> Option<Image> {
        let home = tempfile::Builder::new().prefix("lamina-xfs-").tempdir().ok()?;
        let (file, root) = (home.path().join("image"), home.path().join("root"));
        fs::create_dir(&root).ok()?;
        fs::File::create(&file).and_then(|image| image.set_len(size_mib << 20)).ok()?;
        let run =
            |program: &str, words: &[&OsStr]| Command::new(program).args(words).status().is_ok_and(|end| end.success());
        let made = run("mkfs.xfs", &["-q".as_ref(), "-f".as_ref(), "-m".as_ref(), "reflink=1".as_ref(), file.as_ref()]);
        let mounted = made && run("mount", &["-o".as_ref(), "loop".as_ref(), file.as_ref(), root.as_ref()]);
        mounted.then_some(Image { home })
    }

    /// Its root.
    pub fn root(&self) -> PathBuf {
        self.home.path().join("root")
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if let Err(error) = nix::mount::umount2(&self.root(), nix::mount::MntFlags::MNT_DETACH) {
            eprintln!("umount {}: {error}", self.root().display());
        }
    }
}
