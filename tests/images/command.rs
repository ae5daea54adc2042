//! `lamina-snapshotter image` on a store of its own. It owns the store's directory; layers in it are looked at where the command
//! says that they are.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::lamina;
use support::overlay::ReadOnlyOverlay;
use support::said::Said;
use tempfile::TempDir;

/// A store and the command on it.
pub struct Images {
    home: TempDir,
    environment: Vec<(String, PathBuf)>,
}

impl Images {
    pub fn new() -> Images {
        Images {
            home: tempfile::Builder::new().prefix("lamina-images-").tempdir().expect("mkdir"),
            environment: Vec::new(),
        }
    }

    /// The same with a variable in its environment.
    pub fn with(mut self, name: &str, value: &Path) -> Images {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn root(&self) -> PathBuf {
        self.home.path().join("store")
    }

    /// A path beside the store that goes with it.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The command with its arguments, not started.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(lamina::snapshotter_binary());
        command.args(["image", "--root"]).arg(self.root()).args(arguments).stdin(Stdio::null());
        command
            .env_remove("HOME")
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("REGISTRY_AUTH_FILE")
            .env_remove("DOCKER_CONFIG");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn output<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Output {
        self.command(arguments).output().expect("the command starts")
    }

    /// What it answers on standard output.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> String {
        Said::of(&mut self.command(arguments)).ok()
    }

    /// What it says when it refuses: one sentence.
    #[track_caller]
    pub fn refusal<S: AsRef<OsStr>>(&self, arguments: &[S]) -> String {
        let text = Said::of(&mut self.command(arguments)).fails(1);
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    }

    #[track_caller]
    pub fn json<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Value {
        let arguments: Vec<&OsStr> =
            arguments.iter().map(AsRef::as_ref).chain(["--format", "json"].map(OsStr::new)).collect();
        serde_json::from_str(&self.run(&arguments)).expect("JSON")
    }

    /// The directories of an image's layers, topmost first.
    #[track_caller]
    pub fn layers(&self, name: &str) -> Vec<PathBuf> {
        let inspected = self.json(&["inspect", name]);
        let layers = inspected["layers"].as_array().expect("layers");
        layers.iter().rev().map(|layer| layer["directory"].as_str().expect("it is unpacked").into()).collect()
    }

    /// Mounts an image's layers with the kernel's overlayfs, read-only.
    #[track_caller]
    pub fn mounted(&self, name: &str) -> ReadOnlyOverlay {
        ReadOnlyOverlay::new(&self.layers(name), &self.scratch("merged"))
    }

    /// Panics unless the store holds nothing but its own tables.
    #[track_caller]
    pub fn assert_empty(&self) {
        assert_eq!(self.json(&["list"]), Value::Array(Vec::new()));
        for dir in ["blobs", "ingest", "snapshots"] {
            let left = self.files_below(dir);
            assert!(left.is_empty(), "left in {dir}: {left:?}");
        }
    }

    pub fn files_below(&self, dir: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut dirs = vec![self.root().join(dir)];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(&dir).into_iter().flatten() {
                let entry = entry.expect("entry");
                if entry.file_type().expect("type").is_dir() {
                    dirs.push(entry.path());
                } else {
                    found.push(entry.path());
                }
            }
        }
        found
    }
}
