//! A live mount of a contender.
//!
//! Owns mounting, waiting for it, and taking it away. Invariant: after drop nothing is mounted and no server runs, whether the
//! workload succeeded, failed or was interrupted.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, move_mount,
};

/// How long a server may take to mount, and to end.
const SERVER_WAIT: Duration = Duration::from_secs(20);

/// How long one wait for a change of the mount table lasts before the server is looked at again.
const TABLE_WAIT_MS: u16 = 20;

/// A mount, and its server if it has one.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
    server: Option<Child>,
}

impl Mounted {
    /// The kernel's overlayfs. Layer by layer through fsconfig(2): 64 paths do not fit one page of options.
    pub fn overlay(lowers: &[PathBuf], upper: &Path, work: &Path, volatile: bool, path: &Path) -> Result<Mounted> {
        let filesystem = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).context("fsopen overlay")?;
        for lower in lowers {
            fsconfig_set_string(filesystem.as_fd(), "lowerdir+", lower).context("overlayfs: lowerdir+ (Linux 6.8)")?;
        }
        fsconfig_set_string(filesystem.as_fd(), "upperdir", upper).context("overlayfs: upperdir")?;
        fsconfig_set_string(filesystem.as_fd(), "workdir", work).context("overlayfs: workdir")?;
        if volatile {
            fsconfig_set_flag(filesystem.as_fd(), "volatile").context("overlayfs: volatile")?;
        }
        fsconfig_create(filesystem.as_fd()).context("overlayfs: create")?;
        let mount = fsmount(filesystem.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        move_mount(mount.as_fd(), "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).context("move_mount")?;
        Ok(Mounted { path: path.into(), server: None })
    }

    /// A FUSE server that stays in the foreground.
    pub fn fuse(mut command: Command, path: &Path) -> Result<Mounted> {
        let mut errors: File = tempfile::tempfile()?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors.try_clone()?);
        // A group of its own: ^C ends the comparison, which then unmounts; a dead server would leave a dead mount.
        let server = command.process_group(0).spawn().with_context(|| format!("{:?}", command.get_program()))?;
        let mut mounted = Mounted { path: path.into(), server: Some(server) };
        let live = mounted.wait_until_live();
        let mut text = String::new();
        errors.rewind()?;
        errors.read_to_string(&mut text)?;
        live.with_context(|| text.trim().to_owned())?;
        // An option that the program does not know is a warning to it; to a comparison it is another contender.
        if let Some(line) = text.lines().find(|line| line.contains("unknown") && !line.contains("lazytime")) {
            bail!("{}", line.trim());
        }
        Ok(mounted)
    }

    /// The server's process.
    pub fn server(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// Unmounts, and says so when the mount is busy.
    pub fn unmount(mut self) -> Result<()> {
        self.end()
    }

    fn wait_until_live(&mut self) -> Result<()> {
        let mut table = File::open("/proc/self/mountinfo")?;
        let wanted = format!(" {} ", self.path.display());
        let start = Instant::now();
        while start.elapsed() < SERVER_WAIT {
            let mut text = String::new();
            table.rewind()?;
            table.read_to_string(&mut text)?;
            if text.contains(&wanted) {
                return Ok(());
            }
            if let Some(status) = self.server.as_mut().map(Child::try_wait).transpose()?.flatten() {
                bail!("the server ended: {status}");
            }
            wait_for_change(&table)?;
        }
        bail!("nothing is mounted after {} s", SERVER_WAIT.as_secs())
    }

    fn end(&mut self) -> Result<()> {
        let unmounted = match umount2(&self.path, MntFlags::empty()) {
            Ok(()) | Err(Errno::EINVAL) => Ok(()),
            Err(error) => {
                umount2(&self.path, MntFlags::MNT_DETACH).with_context(|| self.path.display().to_string())?;
                Err(error).with_context(|| format!("umount {}", self.path.display()))
            }
        };
        if let Some(mut server) = self.server.take() {
            let start = Instant::now();
            while server.try_wait()?.is_none() {
                if start.elapsed() > SERVER_WAIT {
                    server.kill()?;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        unmounted
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.server.is_some() || is_mounted(&self.path) {
            // A server that waits for its mount has none to be taken away.
            if !is_mounted(&self.path)
                && let Some(server) = &mut self.server
                && let Err(error) = server.kill()
            {
                eprintln!("compare: {error}");
            }
            if let Err(error) = self.end() {
                eprintln!("compare: {error:#}");
            }
        }
    }
}

fn is_mounted(path: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.contains(&format!(" {} ", path.display()))
}

/// The kernel wakes readers of the mount table at each change; see proc_pid_mountinfo(5).
fn wait_for_change(table: &File) -> Result<()> {
    let mut wait = [PollFd::new(table.as_fd(), PollFlags::POLLPRI)];
    match nix::poll::poll(&mut wait, PollTimeout::from(TABLE_WAIT_MS)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error).context("poll mountinfo"),
    }
}
