//! Uppers go to and come from the kernel's overlayfs (privileged and `userxattr`) and fuse-overlayfs: what one wrote, the other shows.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use support::{KernelOverlay, LaminaMount, Layers, Tree, View, dir, file, machine, needs, symlink};

fn layers() -> Layers {
    let top = [
        file("changed", "old"),
        file("gone", ""),
        dir("emptied"),
        file("emptied/x", ""),
        file("moved", "m"),
        dir("kept"),
    ];
    let bottom = [
        dir("emptied"),
        file("emptied/y", ""),
        dir("kept"),
        file("kept/deep", "d"),
        file("kept/gone", ""),
        symlink("link", "changed"),
    ];
    Layers::new(&[&top, &bottom])
}

/// Leaves one of everything in the upper layer: copies, whiteouts, opaque directories, renames, new objects.
fn exercise(root: &Path) {
    OpenOptions::new().append(true).open(root.join("changed")).unwrap().write_all(b" and new").unwrap();
    fs::remove_file(root.join("gone")).unwrap();
    fs::remove_file(root.join("kept/gone")).unwrap();
    fs::remove_dir_all(root.join("emptied")).unwrap();
    fs::create_dir(root.join("emptied")).unwrap();
    fs::write(root.join("emptied/z"), "z").unwrap();
    fs::rename(root.join("moved"), root.join("kept/moved")).unwrap();
    fs::create_dir(root.join("moved")).unwrap();
    fs::write(root.join("new"), "n").unwrap();
    fs::hard_link(root.join("new"), root.join("kept/new")).unwrap();
    fs::remove_file(root.join("link")).unwrap();
    std::os::unix::fs::symlink("elsewhere", root.join("link")).unwrap();
    support::literal::set_xattr(&root.join("kept"), "user.k", b"v").unwrap();
    std::os::unix::fs::chown(root.join("kept/deep"), Some(3), Some(4)).unwrap();
}

/// fuse-overlayfs counts the names that it happens to have seen, its issue #435.
const LINKLESS: View = View { nlinks: false, ..View::ALL };

/// fuse-overlayfs, mounted as podman does.
struct FuseOverlayfs(PathBuf);

impl FuseOverlayfs {
    fn new(layers: &Layers) -> FuseOverlayfs {
        machine::run("fuse-overlayfs", &["-o", &layers.options(), layers.merged.to_str().unwrap()]);
        FuseOverlayfs(layers.merged.clone())
    }
}

impl Drop for FuseOverlayfs {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.0, MntFlags::empty()) {
            eprintln!("umount {}: {error}", self.0.display());
        }
    }
}

/// What the other shows. It may list marks of the flavour that it does not read as attributes, and overlayfs breaks its promise on `d_ino`.
fn shown_by_other(path: &Path) -> Tree {
    without_marks(Tree::read_despite_d_ino(path))
}

fn without_marks(mut tree: Tree) -> Tree {
    for node in tree.0.values_mut() {
        node.xattrs.retain(|name, _| !name.starts_with("user.overlay.") && !name.starts_with("trusted.overlay."));
    }
    tree
}

fn ours_is_shown_by(overlay: impl Fn(&Layers) -> KernelOverlay, layers: &Layers) {
    let written = {
        let mount = LaminaMount::new(layers);
        exercise(mount.path());
        Tree::read(mount.path())
    };
    let shown = {
        let mount = overlay(layers);
        shown_by_other(mount.path())
    };
    written.assert_same(&shown, View::ALL);
    // And back again, after the kernel has had it.
    let mount = LaminaMount::new(layers);
    written.assert_same(&Tree::read(mount.path()), View::ALL);
    layers.assert_lowers_untouched();
}

fn theirs_is_shown_by_us(overlay: impl Fn(&Layers) -> KernelOverlay) {
    let layers = layers();
    let written = {
        let mount = overlay(&layers);
        exercise(mount.path());
        shown_by_other(mount.path())
    };
    let mut mount = LaminaMount::new(&layers);
    written.assert_same(&Tree::read(mount.path()), View::ALL);
    fs::remove_dir_all(mount.join("kept")).unwrap();
    fs::create_dir(mount.join("kept")).unwrap();
    mount.remount();
    let ours = Tree::read(mount.path());
    drop(mount);
    let mount = overlay(&layers);
    ours.assert_same(&shown_by_other(mount.path()), View::ALL);
    layers.assert_lowers_untouched();
}

#[test]
fn upper_of_ours_mounts_on_overlayfs_with_userxattr() {
    needs!(machine::mounts(), KernelOverlay::missing());
    ours_is_shown_by(|layers| KernelOverlay::with(layers, "userxattr"), &layers());
}

/// A privileged overlayfs reads `trusted.` only: once an upper has its marks, Lamina writes them in the same way.
#[test]
fn upper_of_a_privileged_overlayfs_stays_one() {
    needs!(machine::mounts(), KernelOverlay::missing());
    let layers = layers();
    {
        let mount = KernelOverlay::with(&layers, "index=off");
        fs::remove_dir_all(mount.join("emptied")).unwrap();
        fs::create_dir(mount.join("emptied")).unwrap();
        fs::write(mount.join("emptied/x"), "").unwrap();
    }
    ours_is_shown_by(|layers| KernelOverlay::with(layers, "index=off"), &layers);
}

#[test]
fn upper_of_overlayfs_mounts_with_ours() {
    needs!(machine::mounts(), KernelOverlay::missing());
    theirs_is_shown_by_us(|layers| KernelOverlay::with(layers, "index=off"));
}

#[test]
fn upper_of_overlayfs_with_userxattr_mounts_with_ours() {
    needs!(machine::mounts(), KernelOverlay::missing());
    theirs_is_shown_by_us(|layers| KernelOverlay::with(layers, "userxattr"));
}

#[test]
fn upper_of_overlayfs_with_index_mounts_with_ours() {
    needs!(machine::mounts(), KernelOverlay::missing());
    let layers = layers();
    let written = {
        let mount = KernelOverlay::new(&layers);
        exercise(mount.path());
        shown_by_other(mount.path())
    };
    let mount = LaminaMount::new(&layers);
    written.assert_same(&Tree::read(mount.path()), View::ALL);
}

#[test]
fn upper_of_fuse_overlayfs_mounts_with_ours() {
    needs!(machine::mounts(), machine::program("fuse-overlayfs"));
    let layers = layers();
    let written = {
        let mount = FuseOverlayfs::new(&layers);
        exercise(&mount.0);
        shown_by_other(&mount.0)
    };
    let mount = LaminaMount::new(&layers);
    written.assert_same(&Tree::read(mount.path()), LINKLESS);
    layers.assert_lowers_untouched();
}

#[test]
fn upper_of_ours_mounts_with_fuse_overlayfs() {
    needs!(machine::mounts(), machine::program("fuse-overlayfs"));
    let layers = layers();
    let written = {
        let mount = LaminaMount::new(&layers);
        exercise(mount.path());
        Tree::read(mount.path())
    };
    let mount = FuseOverlayfs::new(&layers);
    written.assert_same(&shown_by_other(&mount.0), LINKLESS);
    layers.assert_lowers_untouched();
}
