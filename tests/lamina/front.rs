//! `lamina` on a store of its own. It owns the store's directory. A container here is one that never ran: its layer is changed through a mount of
//! `lamina-fs` with the same directories, as a run would change it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use lamina_runtime::container::{Containers, Record};
use lamina_snapshotter::image::operations;
use lamina_snapshotter::snapshot::Labels;
use lamina_snapshotter::store::Store;
use serde_json::Value;
use support::lamina::{Lamina, LaminaMount};
use support::overlay::ReadOnlyOverlay;
use support::said::Said;
use support::{debian, lamina, machine};
use tempfile::TempDir;

/// A store and the command on it.
pub struct Front {
    home: TempDir,
}

/// The directories of a container.
pub struct Parts {
    pub upper: PathBuf,
    pub lowers: Vec<PathBuf>,
}

impl Front {
    pub fn new() -> Front {
        Front { home: tempfile::Builder::new().prefix("lamina-front-").tempdir().expect("mkdir") }
    }

    /// With the test image as `app:1`.
    pub fn with_image() -> Front {
        let front = Front::new();
        let layout = debian::layout().to_str().expect("UTF-8");
        assert_eq!(front.run(&["load", "-q", "-i", layout, "--tag", "app:1"]), "Loaded image: app:1\n");
        front
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
        let mut command = Command::new(lamina::front_end());
        command.args(arguments).env("LAMINA_STORE", self.root()).stdin(Stdio::null());
        command.env_remove("REGISTRY_AUTH_FILE").env_remove("DOCKER_CONFIG");
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

    /// What it says when it refuses: one sentence, and docker's exit code for an error of its own.
    #[track_caller]
    pub fn refusal<S: AsRef<OsStr>>(&self, arguments: &[S]) -> String {
        let text = Said::of(&mut self.command(arguments)).fails(125);
        assert!(text.starts_with("lamina: ") && text.lines().count() == 1, "{text}");
        text
    }

    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.run(arguments)).expect("JSON")
    }

    /// The objects of an answer with one a line.
    #[track_caller]
    pub fn json_lines(&self, arguments: &[&str]) -> Vec<Value> {
        self.run(arguments).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Makes a container of an image; answers its ID.
    pub fn container(&self, name: &str, image: &str) -> String {
        let store = Store::open(&self.root()).expect("the store opens");
        let opened = operations::open(&store, &operations::find(&store, image).expect("an image")).expect("an image");
        let claim = Containers::new(&self.root()).claim(Some(&name.parse().expect("a name"))).expect("a claim");
        let id = claim.id().clone();
        let made = store.prepare_container(id.as_str(), opened.chain().as_ref(), Labels::new()).expect("a snapshot");
        let record = Record {
            id: id.clone(),
            name: claim.name().clone(),
            image: image.to_owned(),
            image_id: opened.config_digest,
            chain_id: opened.chain(),
            created: "2024-01-02T03:04:05.000000006Z".to_owned(),
            content: made.content,
            command: ["sh", "-c", "change things"].map(str::to_owned).to_vec(),
            labels: BTreeMap::new(),
            remove: false,
            terminal: false,
            interactive: false,
            stop_signal: "SIGTERM".to_owned(),
            stop_timeout_seconds: 10,
            rootless: false,
        };
        claim.commit(record).expect("a container");
        id.to_string()
    }

    pub fn parts(&self, container: &str) -> Parts {
        let data = &self.json(&["inspect", container])[0]["GraphDriver"]["Data"];
        let lowers = data["LowerDir"].as_str().expect("layers").split(':').map(PathBuf::from).collect();
        Parts { upper: data["UpperDir"].as_str().expect("a layer").into(), lowers }
    }

    /// Changes a container's files through a mount, by a script whose directory is the container's root.
    pub fn change(&self, container: &str, script: &str) {
        let Parts { upper, lowers } = self.parts(container);
        let at = self.scratch(&format!("{container}-root"));
        std::fs::create_dir_all(&at).expect("mkdir");
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            join(&lowers),
            upper.display(),
            upper.with_file_name("work").display()
        );
        let mount = Lamina::with_options(&options, &at).mount();
        machine::shell(&format!("set -e; umask 022; cd {}; {script}", at.display()));
        drop(mount);
    }

    /// Mounts directories with `lamina-fs`, read-only, topmost first.
    pub fn look(&self, name: &str, layers: &[PathBuf]) -> LaminaMount {
        let at = self.scratch(name);
        std::fs::create_dir_all(&at).expect("mkdir");
        Lamina::with_options(&format!("lowerdir={}", join(layers)), &at).mount()
    }

    /// Mounts directories with the kernel's overlayfs, read-only, topmost first.
    pub fn overlay(&self, name: &str, layers: &[PathBuf]) -> ReadOnlyOverlay {
        ReadOnlyOverlay::new(layers, &self.scratch(name))
    }
}

fn join(layers: &[PathBuf]) -> String {
    layers.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":")
}
