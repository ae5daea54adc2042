//! A filesystem in a file: an image made by mkfs and mounted through a loop device, for what only one filesystem can show (reflinks, a
//! full disk). It owns the image. Invariant: the loop device is freed by the unmount.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{MemfdFlags, SealFlags, memfd_create};
use tempfile::TempDir;

use crate::machine;

/// A mounted image; root only.
pub struct Image {
    home: TempDir,
}

impl Image {
    /// What an image of this kind needs and this machine lacks.
    pub fn missing(kind: &str) -> Option<String> {
        machine::root().or_else(|| machine::filesystem(kind)).or_else(|| machine::program(&format!("mkfs.{kind}")))
    }

    /// Makes and mounts a filesystem `kind` (xfs, btrfs, ext4) of `size_mib`; sparse, so it costs what is written.
    pub fn new(kind: &str, size_mib: u64) -> Image {
        Image::made_with(kind, size_mib, &[])
    }

    /// The same with further arguments of mkfs.
    pub fn made_with(kind: &str, size_mib: u64, arguments: &[&str]) -> Image {
        let home = tempfile::Builder::new().prefix("lamina-image-").tempdir().expect("temporary directory");
        let (file, at) = (home.path().join("image"), home.path().join("root"));
        std::fs::create_dir(&at).expect("mkdir");
        let made = std::fs::File::create(&file).and_then(|image| image.set_len(size_mib << 20));
        made.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let quiet = if kind == "ext4" { ["-q", "-F"] } else { ["-q", "-f"] };
        let (file, at) = (file.to_str().expect("UTF-8"), at.to_str().expect("UTF-8"));
        machine::run(&format!("mkfs.{kind}"), &[&quiet, arguments, &[file]].concat());
        machine::run("mount", &["-o", "loop", file, at]);
        Image { home }
    }

    /// An ext4 of `size_mib` on a disk that answers EIO to writes beyond `good_mib`: memory that was cut and may not grow again, see
    /// memfd_create(2). The device mapper, which has targets for this, is not in every kernel.
    pub fn broken_beyond(good_mib: u64, size_mib: u64) -> Image {
        let home = tempfile::Builder::new().prefix("lamina-broken-").tempdir().expect("temporary directory");
        let at = home.path().join("root");
        std::fs::create_dir(&at).expect("mkdir");
        let disk = memfd_create("disk", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).expect("memfd_create");
        rustix::fs::ftruncate(&disk, size_mib << 20).expect("ftruncate");
        let file = format!("/proc/{}/fd/{}", std::process::id(), disk.as_raw_fd());
        // In one group, so that its own tables lie at the start; without a journal, which would give up as a whole.
        machine::run("mkfs.ext4", &["-q", "-F", "-b", "4096", "-O", "^has_journal", &file]);
        let device = machine::run("losetup", &["--find", "--show", &file]);
        let device = device.trim();
        machine::run("mount", &[device, at.to_str().expect("UTF-8")]);
        // The kernel frees it with the unmount.
        machine::run("losetup", &["--detach", device]);
        let image = Image { home };
        image.free_bytes();
        rustix::fs::ftruncate(&disk, good_mib << 20).expect("ftruncate");
        rustix::fs::fcntl_add_seals(&disk, SealFlags::GROW | SealFlags::SHRINK).expect("seal");
        image
    }

    /// A tmpfs limited to `size_mib`: the cheapest full disk.
    pub fn tmpfs(size_mib: u64) -> Image {
        let home = tempfile::Builder::new().prefix("lamina-tmpfs-").tempdir().expect("temporary directory");
        let at = home.path().join("root");
        std::fs::create_dir(&at).expect("mkdir");
        let size = format!("size={size_mib}m");
        mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), Some(size.as_str())).expect("mount tmpfs");
        Image { home }
    }

    /// The root of the mounted filesystem.
    pub fn path(&self) -> PathBuf {
        self.home.path().join("root")
    }

    /// Free bytes, after everything dirty is written.
    pub fn free_bytes(&self) -> u64 {
        free_bytes(&self.path())
    }
}

/// Free bytes of the filesystem of `path`, after everything dirty is written.
pub fn free_bytes(path: &Path) -> u64 {
    let root = std::fs::File::open(path).expect("open");
    rustix::fs::syncfs(&root).expect("syncfs");
    let stat = rustix::fs::fstatvfs(&root).expect("statvfs");
    stat.f_bavail * stat.f_frsize
}

impl Drop for Image {
    fn drop(&mut self) {
        if umount2(&self.path(), MntFlags::empty()).is_err()
            && let Err(error) = umount2(&self.path(), MntFlags::MNT_DETACH)
        {
            eprintln!("umount {}: {error}", self.path().display());
        }
    }
}
