//! A filesystem below the upper layer that refuses: full, over quota, broken; and a server out of descriptors. Faults at every single call are
//! injected in `fs/src/union/fault_tests.rs`; here the kernel itself refuses. Invariant of each: the error is told, and the tree is what it was.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use support::image::Image;
use support::lamina::Lamina;
use support::{LaminaMount, Layers, Tree, View, dir, file, machine, needs};

const BIG_BYTES: usize = 40 << 20;

type Change = fn(&Path) -> io::Result<()>;

fn append(root: &Path, name: &str) -> io::Result<()> {
    let mut open = OpenOptions::new().append(true).open(root.join(name))?;
    open.write_all(b"+")?;
    open.sync_all()
}

const COPY_BIG: Change = |root| append(root, "big");

/// Each needs a new file in the upper layer. In this order all can be done in one tree.
const CHANGES: [(&str, Change); 7] = [
    ("create", |root| OpenOptions::new().write(true).create_new(true).mode(0o600).open(root.join("d/new")).map(drop)),
    ("mkdir", |root| fs::create_dir(root.join("made"))),
    ("symlink", |root| std::os::unix::fs::symlink("target", root.join("symlink"))),
    ("chmod of a lower file", |root| fs::set_permissions(root.join("d/mode"), Permissions::from_mode(0o600))),
    ("append to a lower file", |root| append(root, "d/data")),
    ("rename of a lower file", |root| fs::rename(root.join("from"), root.join("d/to"))),
    ("link of a lower file", |root| fs::hard_link(root.join("one"), root.join("two"))),
];

fn layers_with_upper_on(image: &Path) -> Layers {
    let small = ["d/mode", "d/data", "from", "one"].map(|name| file(name, name));
    let mut lower = vec![dir("d"), file("big", vec![b'L'; BIG_BYTES])];
    lower.extend(small);
    let mut layers = Layers::new(&[&lower]);
    layers.move_upper_to(image);
    layers
}

#[track_caller]
fn assert_refused(layers: &Layers, mount: &LaminaMount, errno: i32, what: &str, change: Change) {
    let before = Tree::read(mount.path());
    let error = change(mount.path()).expect_err(what);
    assert_eq!(error.raw_os_error(), Some(errno), "{what}: {error}");
    before.assert_same(&Tree::read(mount.path()), View::ALL);
    assert_eq!(layers.names_in_work(), Vec::<String>::new(), "{what} left something in work");
}

/// What was refused goes through once there is room, and the lower layer is what it was.
fn assert_all_work(layers: &Layers, mut mount: LaminaMount) {
    for (what, change) in CHANGES {
        change(mount.path()).unwrap_or_else(|error| panic!("{what} with room: {error}"));
    }
    mount.remount();
    assert_eq!(fs::read(mount.join("d/to")).unwrap(), b"from");
    assert_eq!(fs::read(mount.join("two")).unwrap(), b"one");
    drop(mount);
    layers.assert_lowers_untouched();
}

/// Makes `file` after `file` until the filesystem refuses with `errno`.
fn fill(dir: &Path, errno: i32, content: &[u8]) {
    let one = |at: u32| {
        File::create(dir.join(at.to_string()))
            .and_then(|mut open| open.write_all(content).and_then(|()| open.sync_all()))
    };
    let refused = (0..1 << 20).find_map(|at| one(at).err()).expect("no end of room");
    assert_eq!(refused.raw_os_error(), Some(errno), "{refused}");
}

#[test]
fn full_disk_refuses_and_changes_nothing() {
    needs!(machine::mounts(), Image::missing("ext4"));
    // 24 MiB and few inodes: no room for the big file, and soon none for any.
    let image = Image::made_with("ext4", 24, &["-N", "64"]);
    let layers = layers_with_upper_on(&image.path());
    let mount = LaminaMount::new(&layers);
    assert_refused(&layers, &mount, libc::ENOSPC, "copy-up", COPY_BIG);
    let ballast = image.path().join("ballast");
    fs::create_dir(&ballast).unwrap();
    fill(&ballast, libc::ENOSPC, b"");
    for (what, change) in CHANGES {
        assert_refused(&layers, &mount, libc::ENOSPC, what, change);
    }
    fs::remove_dir_all(&ballast).unwrap();
    assert_all_work(&layers, mount);
}

/// By a group of Btrfs: neither project quotas of XFS nor the quota files of ext4 are in every kernel.
#[test]
fn quota_refuses_and_changes_nothing() {
    needs!(machine::mounts(), Image::missing("btrfs"), machine::program("btrfs"));
    let image = Image::new("btrfs", 256);
    let (root, limited) = (image.path(), image.path().join("limited"));
    let (root, name) = (root.to_str().unwrap(), limited.to_str().unwrap());
    machine::run("btrfs", &["quota", "enable", root]);
    machine::run("btrfs", &["subvolume", "create", name]);
    machine::run("btrfs", &["qgroup", "limit", "16M", name]);
    let layers = layers_with_upper_on(&limited);
    let mount = LaminaMount::new(&layers);
    assert_refused(&layers, &mount, libc::EDQUOT, "copy-up", COPY_BIG);
    let ballast = limited.join("ballast");
    fs::create_dir(&ballast).unwrap();
    fill(&ballast, libc::EDQUOT, &vec![b'b'; 1 << 20]);
    fill(&ballast.join(".."), libc::EDQUOT, &vec![b'b'; 1 << 12]);
    for (what, change) in CHANGES {
        assert_refused(&layers, &mount, libc::EDQUOT, what, change);
    }
    drop(mount);
    layers.assert_lowers_untouched();
}

/// The copy is written to the page cache without complaint; only fsync(2) tells, and the copy must wait for it.
#[test]
fn broken_disk_refuses_and_changes_nothing() {
    needs!(machine::mounts(), Image::missing("ext4"), machine::program("losetup"));
    let image = Image::broken_beyond(16, 64);
    let layers = layers_with_upper_on(&image.path());
    let mount = LaminaMount::new(&layers);
    assert_refused(&layers, &mount, libc::EIO, "copy-up", COPY_BIG);
    assert_all_work(&layers, mount);
}

const DESCRIPTORS: usize = 64;

/// A file without a name lives by its descriptor alone, and they run out. What was refused for want of one goes through when one is free.
#[test]
fn server_without_descriptors_refuses_and_changes_nothing() {
    needs!(machine::mounts(), machine::program("prlimit"));
    let place = tempfile::tempdir().unwrap();
    let layers = layers_with_upper_on(place.path());
    let limit = format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}");
    let mount = Lamina::on(&layers).through(&["prlimit", &limit]).mount();
    let mut held = Vec::new();
    let refused = (0..2 * DESCRIPTORS).find_map(|at| {
        let path = mount.join(&format!("held{at}"));
        let open = File::create(&path).map(|open| held.push(open));
        open.and_then(|()| fs::remove_file(&path)).err().map(|error| (at, error))
    });
    let (at, error) = refused.expect("more files without a name than descriptors");
    assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
    println!("{at} files without a name on {DESCRIPTORS} descriptors");
    drop(held);
    let names: Vec<_> = Tree::read(mount.path())
        .paths()
        .into_iter()
        .map(str::to_owned)
        .filter(|name| name.starts_with("held"))
        .collect();
    assert!(names.is_empty() || names == [format!("held{at}")], "{names:?}");
    assert_all_work(&layers, mount);
}
