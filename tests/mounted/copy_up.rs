//! Copy-up: what a copy keeps, what is not copied at all, and what a full disk leaves behind.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use support::image::Image;
use support::literal::{set_xattr, xattr};
use support::{KernelOverlay, LaminaMount, Layers, Tree, View, dir, fifo, file, machine, needs, sparse, symlink};

const MIB: usize = 1 << 20;

/// A lower layer with 64 MiB of data, and an upper of 8 MiB: a copy cannot succeed.
fn big_lower_small_upper(image: &Image) -> Layers {
    let content = vec![b'L'; 64 * MIB];
    let mut layers = Layers::new(&[&[file("big", &content), dir("d"), file("d/big", &content), file("small", "s")]]);
    layers.move_upper_to(&image.path());
    layers
}

/// fuse-overlayfs copied through sendfile: 8 blocks became 16,392.
#[test]
fn copy_of_a_sparse_file_is_sparse() {
    needs!(machine::mounts());
    let size = 64 * MIB as u64;
    let layers = Layers::new(&[&[sparse("f", size, &[(0, b"head"), (32 << 20, b"middle")])]]);
    let mount = LaminaMount::new(&layers);
    let before = fs::read(mount.join("f")).unwrap();
    OpenOptions::new().append(true).open(mount.join("f")).unwrap().write_all(b"tail").unwrap();
    let after = fs::read(mount.join("f")).unwrap();
    assert!(after.strip_prefix(before.as_slice()) == Some(b"tail"), "the copy has another content");
    drop(mount);
    let blocks = layers.upper.join("f").metadata().unwrap().blocks();
    assert!(blocks < 128, "the copy of a file with 10 bytes of data takes {blocks} blocks");
}

/// A small file is read and written in one piece, but for its holes.
#[test]
fn copy_of_a_small_sparse_file_is_sparse() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[
        sparse("hole-within", 60_000, &[(0, b"head"), (50_000, b"tail")]),
        sparse("hole-at-end", 60_000, &[(0, b"head")]),
        sparse("nothing-else", 60_000, &[]),
    ]]);
    let mount = LaminaMount::new(&layers);
    for name in ["hole-within", "hole-at-end", "nothing-else"] {
        let before = fs::read(mount.join(name)).unwrap();
        fs::set_permissions(mount.join(name), Permissions::from_mode(0o600)).unwrap();
        assert!(fs::read(mount.join(name)).unwrap() == before, "{name}: the copy has another content");
        let blocks = layers.upper.join(name).metadata().unwrap().blocks();
        assert!(blocks <= 16, "{name}: two pages of data take {blocks} blocks");
    }
}

#[test]
fn open_with_truncation_copies_no_data() {
    needs!(machine::mounts(), machine::mount_call());
    let image = Image::tmpfs(8);
    let layers = big_lower_small_upper(&image);
    let mut mount = LaminaMount::new(&layers);
    fs::write(mount.join("big"), "short").unwrap();
    mount.remount();
    assert_eq!(fs::read(mount.join("big")).unwrap(), b"short");
    drop(mount);
    layers.assert_lowers_untouched();
}

/// fuse-overlayfs copied up what it was about to delete: `rm` of a big file on a full disk answered ENOSPC.
#[test]
fn removal_copies_no_data() {
    needs!(machine::mounts(), machine::mount_call());
    let image = Image::tmpfs(8);
    let layers = big_lower_small_upper(&image);
    let mut mount = LaminaMount::new(&layers);
    fs::remove_file(mount.join("big")).unwrap();
    fs::remove_dir_all(mount.join("d")).unwrap();
    mount.remount();
    let names: Vec<_> = fs::read_dir(mount.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["small"]);
    drop(mount);
    layers.assert_lowers_untouched();
}

#[test]
fn rename_over_a_big_file_copies_none_of_it() {
    needs!(machine::mounts(), machine::mount_call());
    let image = Image::tmpfs(8);
    let layers = big_lower_small_upper(&image);
    let mut mount = LaminaMount::new(&layers);
    fs::rename(mount.join("small"), mount.join("big")).unwrap();
    fs::write(mount.join("new"), "n").unwrap();
    fs::rename(mount.join("new"), mount.join("d/big")).unwrap();
    mount.remount();
    assert_eq!(fs::read(mount.join("big")).unwrap(), b"s");
    assert_eq!(fs::read(mount.join("d/big")).unwrap(), b"n");
    drop(mount);
    layers.assert_lowers_untouched();
}

#[test]
fn copy_up_on_a_full_disk_fails_and_leaves_everything_as_it_was() {
    needs!(machine::mounts(), machine::mount_call());
    let image = Image::tmpfs(8);
    let layers = big_lower_small_upper(&image);
    let mut mount = LaminaMount::new(&layers);
    let before = Tree::read(mount.path());
    // What a write needs is copied at the open, at the write or at the close; one of them must say so.
    let written = OpenOptions::new().append(true).open(mount.join("big")).and_then(|mut open| {
        open.write_all(b"x")?;
        open.sync_all()
    });
    assert_eq!(written.unwrap_err().kind(), ErrorKind::StorageFull);
    let truncated = OpenOptions::new().write(true).open(mount.join("d/big")).and_then(|open| open.set_len(60 << 20));
    assert_eq!(truncated.unwrap_err().kind(), ErrorKind::StorageFull);
    before.assert_same(&Tree::read(mount.path()), View::ALL);
    assert_eq!(layers.names_in_work(), Vec::<String>::new(), "the failed copy is still in work");
    assert!(!layers.upper.join("big").exists(), "part of a copy was published");
    fs::write(mount.join("fits"), "still writable").unwrap();
    mount.remount();
    fs::remove_file(mount.join("fits")).unwrap();
    before.assert_same(&Tree::read(mount.path()), View::TIMELESS);
    drop(mount);
    layers.assert_lowers_untouched();
}

#[test]
fn parents_are_created_with_their_own_attributes() {
    needs!(machine::mounts(), machine::owners());
    let lower = [
        dir("a").mode(0o710).owner(11, 12).mtime(1111).xattr("user.a", "1"),
        dir("a/b").mode(0o2775).owner(21, 22).mtime(2222),
        file("a/b/f", "x").mtime(3333),
    ];
    let layers = Layers::new(&[&lower]);
    let mut mount = LaminaMount::new(&layers);
    let before = Tree::read(mount.path());
    OpenOptions::new().append(true).open(mount.join("a/b/f")).unwrap().write_all(b"y").unwrap();
    let mut expected = before.clone();
    let changed = expected.0.get_mut("a/b/f").unwrap();
    (changed.body, changed.mtime) = (support::tree::Body::File(b"xy".to_vec()), None);
    expected.0.get_mut(".").unwrap().mtime = None;
    expected.assert_same(&Tree::read(mount.path()), View::ALL);
    mount.remount();
    expected.assert_same(&Tree::read(mount.path()), View::ALL);
    let upper = layers.upper_tree();
    assert_eq!(upper.0["a"].mtime, Some(1111), "mtime of the copied parent on disk");
    assert_eq!(upper.0["a/b"].mtime, Some(2222), "mtime of the copied parent on disk");
}

/// Value of `security.capability` for cap_net_raw=ep, version 2, see capabilities(7).
const CAP_NET_RAW: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn metadata_change_keeps_everything_else() {
    needs!(machine::mounts(), machine::root(), machine::program("setfacl"));
    let mut layers = Layers::new(&[&[
        file("f", "content").mode(0o755).owner(5, 6).xattr("user.k", "v").xattr("security.capability", CAP_NET_RAW),
        file("setuid", "s").owner(7, 8).mode(0o6755).mtime(44),
        dir("d").mode(0o750),
    ]]);
    let acl =
        |name: &str, spec: &str| machine::run("setfacl", &["-m", spec, layers.lowers[0].join(name).to_str().unwrap()]);
    acl("f", "u:1234:rw");
    acl("d", "d:u:1234:rwx,u:99:rx");
    support::literal::set_mtime(&layers.lowers[0].join("f"), 5555).unwrap();
    layers.note_lowers();
    let mut mount = LaminaMount::new(&layers);
    let before = Tree::read(mount.path());
    assert!(before.0["f"].xattrs.contains_key("system.posix_acl_access"), "{:?}", before.0["f"].xattrs);
    for name in ["f", "setuid", "d"] {
        set_xattr(&mount.join(name), "user.trigger", b"1").unwrap();
        rustix::fs::lremovexattr(mount.join(name), "user.trigger").unwrap();
    }
    before.assert_same(&Tree::read(mount.path()), View::ALL);
    mount.remount();
    before.assert_same(&Tree::read(mount.path()), View::ALL);
    assert_eq!(xattr(&layers.upper.join("f"), "security.capability"), Some(CAP_NET_RAW.to_vec()), "in the upper layer");
    layers.assert_lowers_untouched();
}

#[test]
fn special_files_and_links_are_copied_as_what_they_are() {
    needs!(machine::mounts(), machine::root());
    let lower = [
        fifo("p").mode(0o622),
        symlink("s", "nowhere"),
        support::device("c", 'c', 1, 3).mode(0o666),
        support::device("b", 'b', 8, 0),
    ];
    let layers = Layers::new(&[&lower]);
    let mut mount = LaminaMount::new(&layers);
    let mut expected = Tree::read(mount.path());
    for name in ["p", "s", "c", "b"] {
        std::os::unix::fs::lchown(mount.join(name), Some(3), Some(4)).unwrap();
        let node = expected.0.get_mut(name).unwrap();
        (node.uid, node.gid) = (3, 4);
    }
    expected.assert_same(&Tree::read(mount.path()), View::TIMELESS);
    mount.remount();
    expected.assert_same(&Tree::read(mount.path()), View::TIMELESS);
    assert!(layers.upper.join("b").metadata().unwrap().file_type().is_block_device());
    layers.assert_lowers_untouched();
}

/// Copies of 64 MiB cost next to nothing where the filesystem shares extents.
fn shares_extents_on(kind: &str, size_mib: u64) {
    let image = Image::new(kind, size_mib);
    let layers = Layers::within(&image.path(), &[&[file("big", vec![b'L'; 64 * MIB])]]);
    let mut mount = LaminaMount::new(&layers);
    let before = image.free_bytes();
    OpenOptions::new().write(true).open(mount.join("big")).unwrap().write_all_at(b"x", 5).unwrap();
    mount.unmount();
    assert!(layers.upper.join("big").exists(), "there was a copy-up");
    let used = before.saturating_sub(image.free_bytes());
    assert!(used < 16 * MIB as u64, "the copy of 64 MiB took {used} bytes");
    layers.assert_lowers_untouched();
}

#[test]
fn copy_up_shares_extents_on_xfs() {
    needs!(machine::mounts(), Image::missing("xfs"));
    shares_extents_on("xfs", 512);
}

#[test]
fn copy_up_shares_extents_on_btrfs() {
    needs!(machine::mounts(), Image::missing("btrfs"));
    shares_extents_on("btrfs", 512);
}

/// A crash of the server between two steps of a copy leaves files in work/, and the next mount clears them.
#[test]
fn what_a_crash_left_in_work_is_cleared_at_mount() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("f", "lower")]]);
    let leftovers = layers.work.join("work");
    fs::create_dir_all(leftovers.join("#7/sub")).unwrap();
    fs::write(leftovers.join("#1"), "half a copy").unwrap();
    fs::write(leftovers.join("1"), "garbage that is longer than the lower file").unwrap();
    let mount = LaminaMount::new(&layers);
    assert_eq!(layers.names_in_work(), Vec::<String>::new());
    OpenOptions::new().append(true).open(mount.join("f")).unwrap().write_all(b"!").unwrap();
    assert_eq!(fs::read(mount.join("f")).unwrap(), b"lower!");
}

/// A copy of a file nobody may read or write works too: the server opens it, not the caller's mode.
#[test]
fn file_without_any_permission_is_copied_for_root() {
    needs!(machine::mounts(), machine::owners());
    let layers = Layers::new(&[&[file("f", "secret").mode(0o000).owner(9, 9)]]);
    let mut mount = LaminaMount::new(&layers);
    OpenOptions::new().append(true).open(mount.join("f")).unwrap().write_all(b"!").unwrap();
    mount.remount();
    let stat = mount.join("f").metadata().unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.uid()), (0, 9));
    assert_eq!(fs::read(mount.join("f")).unwrap(), b"secret!");
}

/// The same change on the kernel's overlayfs, as the reference of what a chmod keeps.
#[test]
fn chmod_of_a_lower_file_keeps_what_overlayfs_keeps() {
    needs!(machine::mounts(), KernelOverlay::missing());
    let after = |change: &dyn Fn(&Path)| {
        let layers = Layers::new(&[&[file("f", "content").mode(0o4755).owner(5, 6).xattr("user.k", "v").mtime(77)]]);
        let lamina = LaminaMount::new(&layers);
        change(lamina.path());
        let ours = Tree::read(lamina.path());
        drop(lamina);
        let layers = Layers::new(&[&[file("f", "content").mode(0o4755).owner(5, 6).xattr("user.k", "v").mtime(77)]]);
        let overlay = KernelOverlay::new(&layers);
        change(overlay.path());
        ours.0["f"].eq_but_identity(&Tree::read(overlay.path()).0["f"]);
    };
    after(&|root| fs::set_permissions(root.join("f"), Permissions::from_mode(0o4711)).unwrap());
    after(&|root| std::os::unix::fs::chown(root.join("f"), Some(50), None).unwrap());
    after(&|root| drop(File::open(root.join("f")).unwrap()));
}

/// A default list of the work directory was inherited by every copy: others could read what only its owner could before.
#[test]
fn copies_inherit_nothing_from_the_work_directory() {
    needs!(machine::mounts(), machine::root(), machine::program("setfacl"), machine::program("getfacl"));
    let layers = Layers::new(&[&[file("f", "secret").mode(0o640), dir("d"), file("d/f", "")]]);
    machine::run("setfacl", &["-d", "-m", "u:1000:rwx", layers.work.to_str().unwrap()]);
    let mount = LaminaMount::new(&layers);
    OpenOptions::new().append(true).open(mount.join("f")).unwrap().write_all(b"more").unwrap();
    fs::write(mount.join("d/new"), "").unwrap();
    for path in ["f", "d", "d/new"] {
        let listed = machine::run("getfacl", &["-cpn", layers.upper.join(path).to_str().unwrap()]);
        assert!(!listed.contains("1000"), "{path}: {listed}");
    }
}
