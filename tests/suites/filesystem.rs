//! A filesystem that unites layers, under test: how it is mounted and unmounted.
//!
//! Every one gets the same two lower layers and a new, empty upper. The only module here that mounts and unmounts.

use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, io};

use nix::mount::MntFlags;
use support::lamina::detach;
use tempfile::TempDir;

/// The directory that both lower layers hold; pjdfstest works inside it.
pub const SHARED_DIR: &str = "shared";
/// A file that lies in the lower layer only, with [`LOWER_FILE_BYTES`] of content.
pub const LOWER_FILE: &str = "shared/lower-file";
/// The size of [`LOWER_FILE`], which is also the size that fsx works on.
pub const LOWER_FILE_BYTES: usize = 256 * 1024;

/// What is mounted.
#[derive(Clone, Debug)]
pub enum Filesystem {
    /// Nothing: a directory of the filesystem that the layers lie on, with what they show.
    Plain,
    /// The kernel's own.
    Overlayfs {
        /// Further `-o` words, without the layers.
        options: &'static str,
    },
    /// A program with the command line of fuse-overlayfs.
    Program {
        /// The executable.
        path: PathBuf,
        /// Further `-o` words, without the layers.
        options: String,
    },
}

impl Filesystem {
    /// `lamina-fs` as it was built, with further `-o` words.
    ///
    /// `LAMINA_FS` names the binary; without it, it is looked for beside the directory of the running test.
    pub fn lamina(options: &str) -> Result<Self, Box<dyn Error>> {
        let path = match env::var_os("LAMINA_FS") {
            Some(path) => PathBuf::from(path),
            None => target_dir()?.join("lamina-fs"),
        };
        if !path.exists() {
            return Err(format!(
                "{} is missing: build it with `cargo build -p lamina-fs`, or set LAMINA_FS",
                path.display()
            )
            .into());
        }
        Ok(Filesystem::Program { path, options: options.to_owned() })
    }
}

/// The directory with the binaries of this build, found from the running executable.
fn target_dir() -> io::Result<PathBuf> {
    let executable = env::current_exe()?;
    let dir = executable.parent().unwrap_or(Path::new("."));
    let profile = if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir };
    Ok(profile.to_owned())
}

/// A mounted union over two lower layers; unmounts and removes everything when dropped.
pub struct Mounted {
    base: TempDir,
    live: bool,
}

impl Mounted {
    /// Builds the layers and mounts `filesystem` over them.
    pub fn new(filesystem: &Filesystem) -> Result<Self, Box<dyn Error>> {
        let base = TempDir::with_prefix("lamina-suites-")?;
        // pjdfstest drops to other users, who must be able to reach the mount.
        fs::set_permissions(base.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let mut mounted = Mounted { base, live: false };
        mounted.build_layers()?;
        match filesystem {
            Filesystem::Plain => mounted.fill(&["mount"])?,
            Filesystem::Overlayfs { options } => mounted.mount_overlayfs(options)?,
            Filesystem::Program { path, options } => mounted.mount_program(path, options)?,
        }
        mounted.live = !matches!(filesystem, Filesystem::Plain);
        Ok(mounted)
    }

    /// The directory that holds the layers; on another filesystem than the mount.
    pub fn base(&self) -> &Path {
        self.base.path()
    }

    /// A path inside the mount.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.base().join("mount").join(relative)
    }

    fn build_layers(&self) -> io::Result<()> {
        for dir in ["bottom", "top", "upper", "work", "mount", "secondary"] {
            fs::create_dir(self.base().join(dir))?;
        }
        self.fill(&["bottom", "top"])
    }

    /// The first gets the lower file, the last the one beside it.
    fn fill(&self, layers: &[&str]) -> io::Result<()> {
        let shared = |layer: &str| self.base().join(layer).join(SHARED_DIR);
        layers.iter().try_for_each(|layer| fs::create_dir(shared(layer)))?;
        let content: Vec<u8> = (0..LOWER_FILE_BYTES).map(|at| (at % 251) as u8).collect();
        fs::write(self.base().join(layers[0]).join(LOWER_FILE), content)?;
        fs::write(shared(layers[layers.len() - 1]).join("beside"), "a file of the upper lower layer\n")
    }

    fn layers(&self) -> OsString {
        let base = self.base().display();
        format!("lowerdir={base}/top:{base}/bottom,upperdir={base}/upper,workdir={base}/work").into()
    }

    fn mount_overlayfs(&self, options: &str) -> Result<(), Box<dyn Error>> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "overlay", "-o"]).arg(self.layers());
        if !options.is_empty() {
            mount.args(["-o", options]);
        }
        mount.arg(self.path(""));
        succeed(&mut mount, &self.base().join("mount.log"))
    }

    fn mount_program(&self, program: &Path, options: &str) -> Result<(), Box<dyn Error>> {
        let mut mount = Command::new(program);
        mount.arg("-o").arg(self.layers());
        if !options.is_empty() {
            mount.args(["-o", options]);
        }
        mount.arg(self.path(""));
        succeed(&mut mount, &self.base().join("mount.log"))?;
        // The program must not answer before its mount is live.
        if fs::metadata(self.path(""))?.dev() == fs::metadata(self.base())?.dev() {
            return Err(format!("{} exited 0, but nothing is mounted", program.display()).into());
        }
        Ok(())
    }
}

/// Runs a command that may leave a server behind: its output goes to a file, for a pipe would never end.
fn succeed(command: &mut Command, log: &Path) -> Result<(), Box<dyn Error>> {
    let output = File::create(log)?;
    let status = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).status()?;
    if status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {status}: {}", fs::read_to_string(log)?).into())
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let mount = self.path("");
        // Something may still stand in it after a failure: take the tree away from the others all the same.
        if self.live
            && detach(&mount, MntFlags::empty()).is_err()
            && let Err(error) = detach(&mount, MntFlags::MNT_DETACH)
        {
            eprintln!("umount {}: {error}", mount.display());
        }
    }
}
