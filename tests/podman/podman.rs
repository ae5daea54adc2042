//! Podman and Buildah on a store of their own. It owns their configuration files; nothing of the machine's is read. Invariant: what they make lies
//! below one directory and in the namespaces of a [`Host`].

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Tree, machine};

use crate::host::{Host, LAMINA_OCI, Who};

/// Above what root may set on some machines are podman's own limits; no network is set up.
const LIMITS: [&str; 6] = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "--network", "none"];

/// A store, and who works on it.
pub struct Podman<'a> {
    host: &'a Host,
    who: Who,
    dir: PathBuf,
    runtime: String,
}

impl<'a> Podman<'a> {
    /// With this program to mount layers; without one podman mounts them itself.
    pub fn new(host: &'a Host, who: Who, name: &str, mount_program: Option<&str>) -> Podman<'a> {
        let dir = host.dir(name, who);
        for name in ["home", "xdg"] {
            fs::set_permissions(host.dir(&format!("{}/{name}", dir.display()), who), mode_700()).expect("chmod");
        }
        let at = dir.display();
        let program = mount_program.map_or_else(String::new, |program| format!("mount_program = \"{program}\"\n"));
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{at}/root\"\nrootless_storage_path = \"{at}/root\"\nrunroot = \"{at}/run\"\n\
             [storage.options]\n[storage.options.overlay]\n{program}"
        );
        let engine = format!(
            "[containers]\nlog_driver = \"k8s-file\"\n[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\ntmp_dir = \"{at}/tmp\"\nruntime = \"lamina-oci\"\n\
             runtime_supports_json = [\"lamina-oci\", \"crun\", \"runc\"]\nruntime_supports_nocgroups = [\"lamina-oci\", \"crun\"]\n\
             [engine.runtimes]\nlamina-oci = [\"{LAMINA_OCI}\"]\n"
        );
        for (name, text) in [("storage.conf", storage), ("containers.conf", engine), ("registries.conf", String::new())]
        {
            fs::write(dir.join(name), text).expect("write");
        }
        Podman { host, who, dir, runtime: LAMINA_OCI.to_owned() }
    }

    /// From now on with another runtime than ours.
    pub fn set_runtime(&mut self, runtime: &str) {
        runtime.clone_into(&mut self.runtime);
    }

    /// Whether another runtime makes containers here.
    pub fn makes_containers_with(&self, runtime: &str, image: &str) -> bool {
        if machine::program(runtime).is_some() {
            return false;
        }
        let mut command = self.command("podman");
        command.args(["--runtime", runtime, "run", "--rm"]).args(self.limits()).args([image, "true"]);
        command.output().expect("nsenter").status.success()
    }

    /// What containers need on every machine, in a cgroup of the test's own where they have one.
    fn limits(&self) -> Vec<String> {
        let mut words = LIMITS.map(str::to_owned).to_vec();
        if self.who == Who::Root {
            words.extend(["--cgroup-parent".to_owned(), self.host.cgroup("run")]);
        }
        words
    }

    /// A path below its directory.
    pub fn path(&self, name: &str) -> String {
        self.dir.join(name).to_str().expect("UTF-8").to_owned()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.host.command(self.who, program);
        for (variable, name) in [
            ("HOME", "home"),
            ("XDG_RUNTIME_DIR", "xdg"),
            ("CONTAINERS_STORAGE_CONF", "storage.conf"),
            ("CONTAINERS_CONF", "containers.conf"),
            ("CONTAINERS_REGISTRIES_CONF", "registries.conf"),
        ] {
            command.env(variable, self.dir.join(name));
        }
        command.env("TMPDIR", &self.dir).env_remove("XDG_CONFIG_HOME").env_remove("XDG_DATA_HOME");
        // As a login would have them: Podman looks for the range of ids of $USER.
        let name = if self.who == Who::Root { "root" } else { "somebody" };
        command.env("USER", name).env("LOGNAME", name);
        command.args(["--runtime", &self.runtime]);
        command
    }

    /// What podman says, trimmed; panics unless it answers `code`.
    #[track_caller]
    pub fn answers(&self, code: i32, words: &[&str]) -> String {
        let mut command = self.command("podman");
        said(command.args(words), code)
    }

    /// What podman says when it succeeds.
    #[track_caller]
    pub fn podman(&self, words: &[&str]) -> String {
        self.answers(0, words)
    }

    /// Builds the image `tag` of a directory, with `podman build` or `buildah bud` and these words; answers what the steps said.
    #[track_caller]
    pub fn build(&self, builder: &[&str], tag: &str, context: &Path) -> String {
        let mut command = self.command(builder[0]);
        command.args(&builder[1..]).args(["--tag", tag]).args(LIMITS);
        if self.who == Who::Root {
            // A step's cgroup itself, unlike with `podman run`.
            command.args(["--cgroup-parent", &self.host.cgroup("build")]);
        }
        said(command.arg(context), 0)
    }

    /// `podman run`, with limits that may be set and without a network.
    #[track_caller]
    pub fn run(&self, code: i32, words: &[&str]) -> String {
        let mut command = self.command("podman");
        said(command.arg("run").args(self.limits()).args(words), code)
    }

    /// Makes an image of a tar.
    #[track_caller]
    pub fn import(&self, archive: &Path, image: &str) {
        let mut command = self.command("podman");
        // A user could not open it.
        command.args(["import", "--quiet", "-", image]).stdin(File::open(archive).expect("open"));
        said(&mut command, 0);
    }

    /// The root filesystem of an image as podman exports it.
    pub fn exported(&self, image: &str) -> Tree {
        let (archive, dir) = (self.path("exported.tar"), self.path("exported"));
        let container = self.podman(&["create", "--net", "none", image, "true"]);
        self.podman(&["export", "--output", &archive, &container]);
        self.podman(&["rm", &container]);
        machine::shell(&format!(
            "mkdir {dir}; tar --extract --preserve-permissions --numeric-owner --xattrs --file {archive} --directory {dir}"
        ));
        let mut tree = Tree::read(dir.as_ref());
        // It has times in it; and no layer tells the time of the root.
        tree.0.remove("var/log/dpkg.log");
        tree.0.get_mut(".").expect("a root").mtime = None;
        machine::run("rm", &["-r", &archive, &dir]);
        tree
    }

    /// The first process of a running container, as numbered in the namespaces, and the mounts that it sees.
    pub fn mounts_inside(&self, container: &str) -> String {
        let pid = self.podman(&["inspect", "--format", "{{.State.Pid}}", container]);
        said(self.host.command(Who::Root, "cat").arg(format!("/proc/{pid}/mountinfo")), 0)
    }

    /// What is mounted below its directory where it mounts, podman's own bind of its store aside.
    pub fn mounts_left(&self) -> Vec<String> {
        let table = match self.who {
            Who::Root => said(self.host.command(Who::Root, "cat").arg("/proc/self/mountinfo"), 0),
            Who::User => self.podman(&["unshare", "cat", "/proc/self/mountinfo"]),
        };
        let own = self.path("root/overlay");
        let below = |line: &&str| line.split(' ').nth(4).is_some_and(|at| at.starts_with(&self.path("")) && at != own);
        table.lines().filter(below).map(str::to_owned).collect()
    }

    /// Ends what podman keeps for a user between commands.
    pub fn end(&self) {
        if self.who == Who::User {
            self.podman(&["system", "migrate"]);
        }
    }
}

fn mode_700() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o700)
}

#[track_caller]
fn said(command: &mut Command, code: i32) -> String {
    let output = command.output().expect("nsenter");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{out}\n{err}");
    out.trim().to_owned()
}
