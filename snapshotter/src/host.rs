//! What this host supports, in words: for `doctor` and `info`.
//!
//! Owns the questions, and where the program `lamina-fs` is. Must not know the store's tables. Invariant: changes nothing but for a scratch file in the store's filesystem, which goes at once.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// What one question found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It is there.
    Good(String),
    /// It is missing and would help.
    Lacking(String),
    /// Nothing works without it.
    Bad(String),
}

use Finding::{Bad, Good, Lacking};

impl Finding {
    /// Good, lacking or bad, as words of one width.
    pub fn mark(&self) -> &'static str {
        match self {
            Good(_) => "ok     ",
            Lacking(_) => "lacking",
            Bad(_) => "MISSING",
        }
    }

    /// What was found, and the way out.
    pub fn text(&self) -> &str {
        let (Good(text) | Lacking(text) | Bad(text)) = self;
        text
    }
}

/// Every question, and what was found; `root` is where the store is, or would be.
pub fn examine(root: &Path) -> Vec<(&'static str, Finding)> {
    vec![
        ("kernel", kernel()),
        ("/dev/fuse", fuse()),
        ("lamina-fs", server()),
        ("fusermount3", fusermount()),
        ("reflinks", reflink(root)),
        ("user namespaces", user_namespaces()),
        ("passthrough", passthrough()),
        ("io_uring for FUSE", fuse_uring()),
        ("cgroups", cgroups()),
    ]
}

/// The program that serves mounts: beside the running one, else in PATH.
///
/// # Errors
/// [`Error::NoServerProgram`].
pub fn find_lamina_fs() -> Result<PathBuf> {
    let own = std::env::current_exe().ok().and_then(|own| own.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = own.into_iter().chain(std::env::split_paths(&path)).map(|place| place.join("lamina-fs"));
    places.find(|program| program.is_file()).ok_or(Error::NoServerProgram)
}

/// Major and minor of the running kernel.
fn release() -> Option<(u32, u32)> {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = text.split(['.', '-']).map(|word| word.trim().parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

fn kernel() -> Finding {
    match release() {
        Some((major, minor)) if (major, minor) >= (4, 18) => Good(format!("Linux {major}.{minor}")),
        Some((major, minor)) => Lacking(format!(
            "Linux {major}.{minor}: before 4.18 user namespaces cannot mount FUSE; only root can use Lamina"
        )),
        None => Bad("/proc/sys/kernel/osrelease cannot be read: mount /proc".into()),
    }
}

fn fuse() -> Finding {
    match File::options().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Good("it can be opened".into()),
        Err(error) => Bad(format!("{error}; load the module fuse, or in a container pass the device through")),
    }
}

fn server() -> Finding {
    match find_lamina_fs() {
        Ok(program) => Good(program.display().to_string()),
        Err(error) => Bad(error.to_string()),
    }
}

fn fusermount() -> Finding {
    let path = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&path).map(|place| place.join("fusermount3")).find(|program| program.is_file()) {
        Some(program) => Good(program.display().to_string()),
        None if nix::unistd::geteuid().is_root() => Lacking("not in PATH; only users without privilege need it".into()),
        None => Bad("not in PATH: install the package fuse3".into()),
    }
}

/// Tries it where the store is, or would be.
fn reflink(root: &Path) -> Finding {
    let Some(place) = root.ancestors().find(|place| place.is_dir()) else { return Lacking("no such path".into()) };
    let name = place.join(format!(".lamina-doctor-{}", std::process::id()));
    let scratch = |suffix: &str| {
        let path = PathBuf::from(format!("{}{suffix}", name.display()));
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        // It lives on by its descriptor only.
        fs::remove_file(&path).map(|()| file)
    };
    let cloned = scratch("a").and_then(|from| {
        let to = scratch("b")?;
        std::io::Write::write_all(&mut &from, &[0; 4096])?;
        rustix::fs::ioctl_ficlone(&to, &from).map_err(std::io::Error::from)
    });
    match cloned {
        Ok(()) => Good(format!("{} shares blocks: a copy-up costs no data", place.display())),
        Err(error) => {
            Lacking(format!("{} cannot share blocks ({error}): a copy-up copies; btrfs and xfs can", place.display()))
        }
    }
}

fn user_namespaces() -> Finding {
    let number = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    if number("/proc/sys/user/max_user_namespaces").unwrap_or_default() == 0 {
        return Lacking(
            "/proc/sys/user/max_user_namespaces allows none: containers of users without privilege cannot start".into(),
        );
    }
    if number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
        return Lacking("/proc/sys/kernel/unprivileged_userns_clone keeps users out".into());
    }
    if number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        return Lacking("AppArmor restricts them to programs with a profile".into());
    }
    match fs::metadata("/etc/subuid") {
        Ok(_) => Good("allowed, and /etc/subuid is there".into()),
        Err(_) => Lacking("allowed, but /etc/subuid is missing: a container can have one owner only".into()),
    }
}

fn passthrough() -> Finding {
    match release() {
        Some(release) if release >= (6, 9) => Good("the kernel can read and write past the server".into()),
        _ => Lacking("needs Linux 6.9".into()),
    }
}

fn fuse_uring() -> Finding {
    match fs::read_to_string("/sys/module/fuse/parameters/enable_uring") {
        Ok(text) if text.trim() == "Y" => Good("switched on".into()),
        Ok(_) => Lacking("the module has it, switched off (enable_uring)".into()),
        Err(_) => Lacking("this kernel's module fuse does not have it".into()),
    }
}

fn cgroups() -> Finding {
    match fs::read_to_string("/sys/fs/cgroup/cgroup.controllers") {
        Ok(text) if text.contains("memory") => Good(format!("version 2 with {}", text.trim())),
        Ok(text) => Lacking(format!("version 2 with \"{}\" only: containers cannot be limited in memory", text.trim())),
        Err(_) => Lacking(
            "version 2 is not mounted at /sys/fs/cgroup: only what still knows version 1 can limit containers".into(),
        ),
    }
}
