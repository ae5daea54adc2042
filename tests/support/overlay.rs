//! The kernel's overlayfs, the reference of the differential tests. It owns its mount options and unmounting. Invariant: `index=on` unless
//! a test asks otherwise, since only then are hard links kept over a copy-up.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount};

use crate::lamina::detach;
use crate::layers::Layers;
use crate::machine;

/// A live overlayfs mount; root only.
pub struct KernelOverlay {
    data: String,
    mountpoint: PathBuf,
}

impl KernelOverlay {
    /// What the reference needs and this machine lacks.
    pub fn missing() -> Option<String> {
        machine::root().or_else(|| machine::filesystem("overlay"))
    }

    /// The mount of `layers` with hard links and inode numbers kept, as far as the layers' filesystem allows.
    #[track_caller]
    pub fn new(layers: &Layers) -> KernelOverlay {
        KernelOverlay::with(layers, "index=on,redirect_dir=off,metacopy=off")
    }

    /// The mount of `layers` with these extra options.
    #[track_caller]
    pub fn with(layers: &Layers, extra: &str) -> KernelOverlay {
        let data = format!("{},{extra}", layers.options());
        let overlay = KernelOverlay { data, mountpoint: layers.merged.clone() };
        overlay.start();
        overlay
    }

    #[track_caller]
    fn start(&self) {
        let mounted =
            mount(Some("overlay"), &self.mountpoint, Some("overlay"), MsFlags::MS_NOATIME, Some(self.data.as_str()));
        mounted.unwrap_or_else(|error| panic!("overlay {}: {error}", self.data));
    }

    /// The mountpoint.
    pub fn path(&self) -> &Path {
        &self.mountpoint
    }

    /// A path inside the mount.
    pub fn join(&self, path: &str) -> PathBuf {
        self.mountpoint.join(path)
    }

    /// Unmounts, and mounts again.
    #[track_caller]
    pub fn remount(&mut self) {
        detach(&self.mountpoint, MntFlags::empty())
            .unwrap_or_else(|error| panic!("umount {}: {error}", self.mountpoint.display()));
        self.start();
    }
}

impl Drop for KernelOverlay {
    fn drop(&mut self) {
        if detach(&self.mountpoint, MntFlags::empty()).is_err()
            && let Err(error) = detach(&self.mountpoint, MntFlags::MNT_DETACH)
        {
            eprintln!("umount {}: {error}", self.mountpoint.display());
        }
    }
}

/// A stack of layers, mounted read-only; root only. It goes with the value.
pub struct ReadOnlyOverlay {
    mountpoint: PathBuf,
}

impl ReadOnlyOverlay {
    /// These layers, topmost first, at a directory that is made where it is missing.
    #[track_caller]
    pub fn new(layers: &[PathBuf], mountpoint: &Path) -> ReadOnlyOverlay {
        let layers: Vec<String> = layers.iter().map(|layer| layer.display().to_string()).collect();
        std::fs::create_dir_all(mountpoint).expect("mkdir");
        let options = format!("ro,lowerdir={}", layers.join(":"));
        machine::run("mount", &["-t", "overlay", "overlay", "-o", &options, mountpoint.to_str().expect("UTF-8")]);
        ReadOnlyOverlay { mountpoint: mountpoint.to_owned() }
    }

    /// The mountpoint.
    pub fn path(&self) -> &Path {
        &self.mountpoint
    }
}

impl Drop for ReadOnlyOverlay {
    fn drop(&mut self) {
        if let Err(error) = detach(&self.mountpoint, MntFlags::MNT_DETACH) {
            eprintln!("umount {}: {error}", self.mountpoint.display());
        }
    }
}
