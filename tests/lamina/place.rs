//! A store of its own, with an image of busybox, and a user who runs the commands. Invariant: on drop, panic or not, the containers are removed and
//! with them their processes and mounts.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use support::said::Said;
use support::{lamina, machine};
use tempfile::TempDir;

/// The name of the image.
pub const IMAGE: &str = "busybox:test";

/// A user who need not have a name.
const USER: u32 = 12_345;

/// Who runs the commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Root of the machine.
    Root,
    /// A user whom nobody gave a range of ids.
    OneId,
    /// A user with a range.
    ManyIds,
}

impl Way {
    /// All of them.
    pub const ALL: [Way; 3] = [Way::Root, Way::OneId, Way::ManyIds];

    /// What it needs and this machine lacks.
    pub fn missing(self) -> Option<String> {
        let common = machine::root().or_else(machine::fuse).or_else(|| machine::program("busybox"));
        common.or_else(|| match self {
            Way::Root => None,
            Way::OneId => machine::program("setpriv"),
            Way::ManyIds => machine::program("setpriv").or_else(|| machine::program("newuidmap")).or_else(|| {
                let absent = ["/etc/subuid", "/etc/subgid"].into_iter().find(|file| !Path::new(file).exists());
                absent.map(|file| format!("this machine has no {file}"))
            }),
        })
    }
}

/// In a mount namespace of the command's own: a device that everybody may open, the programs where everybody can reach them, and whoever the
/// user is. `$0` is the scratch directory, `$1` the programs, `$2` the way; the rest is the command.
const STEP_DOWN: &str = r#"
    mount -t tmpfs none /mnt
    mknod -m 666 /mnt/fuse c 10 229 && mount --bind /mnt/fuse /dev/fuse
    mkdir /mnt/programs && mount --bind "$1" /mnt/programs
    printf 'root:x:0:0::/root:/bin/sh\nsomebody:x:12345:12345::/:/bin/sh\n' >/mnt/passwd; mount --bind /mnt/passwd /etc/passwd
    range=; if [ "$2" = ManyIds ]; then range=somebody:300000:65536; fi
    for file in subuid subgid; do
        if [ -e "/etc/$file" ]; then echo "$range" >"/mnt/$file"; mount --bind "/mnt/$file" "/etc/$file"; fi
    done
    shift 2
    exec setpriv --reuid 12345 --regid 12345 --clear-groups --inh-caps=-all -- "$@""#;

/// A store and its user.
#[derive(Debug)]
pub struct Place {
    pub home: TempDir,
    pub way: Way,
}

impl Place {
    /// With the image of busybox, whose configuration has these members.
    pub fn with_image(way: Way, config: Value) -> Place {
        let place = Place::empty(way);
        let layout = place.home.path().join("layout");
        let layer = place.home.path().join("layer.tar");
        busybox(&place.home.path().join("root"), &layer);
        write_layout(&layout, &[layer], config, IMAGE);
        place.load(&layout);
        place
    }

    /// With the image of busybox.
    pub fn new(way: Way) -> Place {
        Place::with_image(way, json!({"Env": ["PATH=/bin"], "Cmd": ["sh"]}))
    }

    /// With nothing in the store.
    pub fn empty(way: Way) -> Place {
        let home = tempfile::Builder::new().prefix("lamina-front-").tempdir().unwrap();
        chmod(home.path(), 0o755);
        let store = home.path().join("store");
        fs::create_dir(&store).unwrap();
        if way != Way::Root {
            lchown(&store, Some(USER), Some(USER)).unwrap();
        }
        Place { home, way }
    }

    /// Takes an image in, as an OCI layout or archive.
    pub fn load(&self, image: &Path) {
        let mut command = self.user("lamina-snapshotter");
        command.args(["image", "--root"]).arg(self.store()).arg("load").arg(image);
        Said::of(&mut command).ok();
    }

    pub fn store(&self) -> PathBuf {
        self.home.path().join("store")
    }

    fn user(&self, program: &str) -> Command {
        if self.way == Way::Root {
            return Command::new(programs().join(program));
        }
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-euc", STEP_DOWN]).arg(self.home.path()).arg(programs());
        command.arg(format!("{:?}", self.way)).arg(Path::new("/mnt/programs").join(program));
        command
    }

    /// `lamina` with these words.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.user("lamina");
        command.env("LAMINA_STORE", self.store()).env_remove("LAMINA_FS").args(words).stdin(Stdio::null());
        command
    }

    /// Runs `lamina` to its end.
    pub fn lamina(&self, words: &[&str]) -> Said {
        Said::of(&mut self.command(words))
    }

    /// `lamina run --rm`, of a script.
    pub fn sh(&self, script: &str) -> Said {
        self.lamina(&["run", "--rm", IMAGE, "sh", "-c", script])
    }

    /// A container in the background that runs until it is ended; answers its id.
    #[track_caller]
    pub fn running(&self, name: &str) -> String {
        let script = "trap 'exit 7' TERM; echo ready; while :; do sleep 100000 & wait; done";
        self.lamina(&["run", "-d", "--name", name, IMAGE, "sh", "-c", script]).ok().trim().to_owned()
    }

    /// What `inspect` has to say, from the files.
    pub fn run_file(&self, id: &str) -> Value {
        let text = fs::read(self.store().join("containers").join(id).join("run.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// Whatever containers leave: directories, processes, mounts, cgroups.
    pub fn leftovers(&self) -> Vec<String> {
        let store = self.store();
        let mut found = Vec::new();
        let containers = fs::read_dir(store.join("containers")).into_iter().flatten().flatten();
        found.extend(containers.map(|entry| entry.file_name().into_string().unwrap()).filter(|name| name.len() == 64));
        let names = fs::read_dir(store.join("containers/names")).into_iter().flatten().flatten();
        found.extend(names.map(|entry| entry.path().display().to_string()));
        let store = store.to_str().unwrap();
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        found.extend(mounts.lines().filter(|line| line.contains(store)).map(str::to_owned));
        for process in fs::read_dir("/proc").unwrap().flatten() {
            // A zombie has no command line: it has ended, and waits for its parent.
            let line =
                String::from_utf8_lossy(&fs::read(process.path().join("cmdline")).unwrap_or_default()).into_owned();
            let environment = fs::read(process.path().join("environ")).unwrap_or_default();
            if line.contains(store) || String::from_utf8_lossy(&environment).contains(store) && line.contains("lamina")
            {
                found.push(line);
            }
        }
        found
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let ids = self.lamina(&["ps", "-aq"]).out;
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if !ids.is_empty() {
            let removed = self.lamina(&[&["rm", "-f"], &ids[..]].concat());
            if removed.code != Some(0) {
                eprintln!("{}", removed.err);
            }
        }
    }
}

/// The programs under test without their debugging information: whoever starts a container without privilege has a copy of his program in memory.
fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let found = [lamina::front_end(), lamina::binary(), lamina::snapshotter_binary()];
        let newest = found.iter().map(|path| fs::metadata(path).unwrap().modified().unwrap()).max().unwrap();
        let age = newest.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("programs-{age}"));
        if !place.exists() {
            // Under a name of its own until it is whole: other tests may be making it too.
            let making = tempfile::Builder::new().prefix("programs-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            for path in found {
                let to = making.path().join(path.file_name().unwrap());
                machine::run("strip", &["-o", to.to_str().unwrap(), path.to_str().unwrap()]);
                chmod(&to, 0o755);
            }
            chmod(making.path(), 0o755);
            if fs::rename(making.path(), &place).is_err() {
                assert!(place.exists());
            } else {
                // It is not there under its first name any more.
                drop(making.keep());
                // Those of earlier builds, which nobody runs any more.
                for old in fs::read_dir(env!("CARGO_TARGET_TMPDIR")).unwrap().flatten() {
                    let name = old.file_name().into_string().unwrap();
                    if name
                        .strip_prefix("programs-")
                        .is_some_and(|stamp| stamp.parse::<u128>().is_ok_and(|stamp| stamp < age))
                    {
                        fs::remove_dir_all(old.path()).unwrap();
                    }
                }
            }
        }
        place
    })
}

/// The root filesystem: busybox, three accounts, a file of somebody else's.
fn busybox(root: &Path, layer: &Path) {
    for name in ["bin", "etc", "proc", "dev", "sys", "tmp", "root", "home/user", "data"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    let program = machine::find_program("busybox").unwrap();
    machine::run("cp", &[program.as_path(), &root.join("bin/busybox")]);
    for name in
        machine::run(program.to_str().unwrap(), &["--list"]).split_whitespace().filter(|name| *name != "busybox")
    {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    let files = [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n", 0o644, 0, 0),
        ("etc/group", "root:x:0:\nuser:x:1000:\nshadow:x:42:user\n", 0o644, 0, 0),
        ("etc/shadow", "root:*:::::::\n", 0o640, 0, 42),
        ("data/file", "of the image\n", 0o644, 1000, 1000),
    ];
    for (path, text, mode, uid, gid) in files {
        let path = root.join(path);
        fs::write(&path, text).unwrap();
        lchown(&path, Some(uid), Some(gid)).unwrap();
        chmod(&path, mode);
    }
    lchown(root.join("home/user"), Some(1000), Some(1000)).unwrap();
    chmod(&root.join("tmp"), 0o1777);
    let (root, layer) = (root.to_str().unwrap(), layer.to_str().unwrap());
    machine::run("tar", &["--numeric-owner", "-cf", layer, "-C", root, "."]);
}

/// Writes an OCI layout of one image.
pub fn write_layout(layout: &Path, layers: &[PathBuf], config: Value, name: &str) {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8], media_type: &str| {
        let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(blobs.join(&digest), bytes).unwrap();
        json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()})
    };
    let layers: Vec<Value> =
        layers.iter().map(|layer| put(&fs::read(layer).unwrap(), "application/vnd.oci.image.layer.v1.tar")).collect();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let architecture = config.get("architecture").cloned().unwrap_or_else(|| architecture.into());
    let diffs: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    let document = json!({"architecture": architecture, "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": diffs}});
    let config = put(document.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers});
    let mut descriptor = put(manifest.to_string().as_bytes(), "application/vnd.oci.image.manifest.v1+json");
    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    fs::write(layout.join("index.json"), json!({"schemaVersion": 2, "manifests": [descriptor]}).to_string()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

pub fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
