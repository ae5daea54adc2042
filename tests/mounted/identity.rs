//! Inode numbers: `st_ino` never changes while mounted, is the same after a remount, and is what readdir says. `Tree::read` checks the last on
//! each entry of each tree in every test; here are the first two.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirEntryExt, MetadataExt, PermissionsExt};

use support::{LaminaMount, Layers, Tree, device, dir, fifo, file, machine, needs, symlink};

const ALL_NAMES: [&str; 6] = ["f", "d", "d/inner", "s", "p", "c"];

/// The last is a device, which only root can make.
fn names() -> &'static [&'static str] {
    &ALL_NAMES[..ALL_NAMES.len() - usize::from(machine::root().is_some())]
}

fn every_type() -> Layers {
    let mut top = vec![file("f", "x"), dir("d"), file("d/inner", "y"), symlink("s", "f"), fifo("p")];
    top.extend(names().contains(&"c").then(|| device("c", 'c', 1, 3)));
    Layers::new(&[&top, &[dir("d"), file("d/low", "")]])
}

fn numbers(mount: &LaminaMount, names: &[&str]) -> Vec<(u64, u64)> {
    let stat = |name: &&str| mount.join(name).symlink_metadata().unwrap();
    names.iter().map(|name| (stat(name).dev(), stat(name).ino())).collect()
}

fn copy_everything_up(mount: &LaminaMount) {
    OpenOptions::new().append(true).open(mount.join("f")).unwrap().write_all(b"+").unwrap();
    fs::set_permissions(mount.join("d"), Permissions::from_mode(0o700)).unwrap();
    for name in &names()[2..] {
        support::literal::set_mtime(&mount.join(name), 7).unwrap();
    }
}

#[test]
fn numbers_stay_over_copy_up() {
    needs!(machine::mounts());
    let layers = every_type();
    let mount = LaminaMount::new(&layers);
    let before = numbers(&mount, names());
    copy_everything_up(&mount);
    assert_eq!(numbers(&mount, names()), before);
    mount.drop_caches();
    assert_eq!(numbers(&mount, names()), before, "after the kernel forgot them");
    Tree::read(mount.path());
}

#[test]
fn numbers_stay_over_remount() {
    needs!(machine::mounts());
    let layers = every_type();
    let mut mount = LaminaMount::new(&layers);
    let before: Vec<u64> = numbers(&mount, names()).into_iter().map(|(_, number)| number).collect();
    mount.remount();
    let lower: Vec<u64> = numbers(&mount, names()).into_iter().map(|(_, number)| number).collect();
    assert_eq!(lower, before, "untouched");
    copy_everything_up(&mount);
    mount.remount();
    let copied: Vec<u64> = numbers(&mount, names()).into_iter().map(|(_, number)| number).collect();
    assert_eq!(copied, before, "copied up, then remounted");
    Tree::read(mount.path());
}

#[test]
fn numbers_move_with_the_name() {
    needs!(machine::mounts());
    let layers = every_type();
    let mut mount = LaminaMount::new(&layers);
    let leaves: Vec<&str> = names().iter().copied().filter(|name| !name.starts_with('d')).collect();
    let before = numbers(&mount, &leaves);
    for name in &leaves {
        fs::rename(mount.join(name), mount.join(&format!("d/{name}-moved"))).unwrap();
    }
    let moved: Vec<String> = leaves.iter().map(|name| format!("d/{name}-moved")).collect();
    let moved: Vec<&str> = moved.iter().map(String::as_str).collect();
    assert_eq!(numbers(&mount, &moved), before);
    mount.remount();
    let after: Vec<u64> = numbers(&mount, &moved).into_iter().map(|(_, number)| number).collect();
    assert_eq!(after, before.into_iter().map(|(_, number)| number).collect::<Vec<_>>());
    Tree::read(mount.path());
}

#[test]
fn numbers_of_new_files_stay_over_rename_and_remount() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[]]);
    let mut mount = LaminaMount::new(&layers);
    fs::write(mount.join("new"), "").unwrap();
    fs::create_dir(mount.join("dir")).unwrap();
    let before = numbers(&mount, &["new", "dir"]);
    fs::rename(mount.join("new"), mount.join("dir/new")).unwrap();
    fs::rename(mount.join("dir"), mount.join("other")).unwrap();
    let now = numbers(&mount, &["other/new", "other"]);
    assert_eq!(now, before);
    mount.remount();
    let after: Vec<u64> = numbers(&mount, &["other/new", "other"]).into_iter().map(|(_, number)| number).collect();
    assert_eq!(after, before.into_iter().map(|(_, number)| number).collect::<Vec<_>>());
}

#[test]
fn one_device_number_for_the_whole_tree() {
    needs!(machine::mounts());
    let layers = every_type();
    let mount = LaminaMount::new(&layers);
    copy_everything_up(&mount);
    let root = mount.path().metadata().unwrap().dev();
    assert!(numbers(&mount, names()).into_iter().all(|(device, _)| device == root));
}

/// `.` and `..` of readdir are the numbers of stat, in the root too.
#[test]
fn dot_entries_have_the_numbers_of_stat() {
    needs!(machine::mounts());
    let layers = every_type();
    let mount = LaminaMount::new(&layers);
    let listed = |path: &str| {
        let open = fs::File::open(mount.join(path)).unwrap();
        let entries = rustix::fs::Dir::read_from(&open).unwrap().map(Result::unwrap);
        let find = |wanted: &str| {
            entries
                .into_iter()
                .collect::<Vec<_>>()
                .into_iter()
                .find(|entry| entry.file_name().to_bytes() == wanted.as_bytes())
                .unwrap()
                .ino()
        };
        find(".")
    };
    assert_eq!(listed("d"), mount.join("d").metadata().unwrap().ino());
    assert_eq!(listed("."), mount.path().metadata().unwrap().ino());
    let listed: Vec<u64> = fs::read_dir(mount.join("d")).unwrap().map(|entry| entry.unwrap().ino()).collect();
    assert_eq!(listed.len(), 2);
}

/// Two files of two filesystems can have one number on disk, and must not have one here.
#[test]
fn files_of_two_filesystems_have_different_numbers() {
    needs!(machine::mounts(), machine::mount_call());
    let (first, second) = (support::image::Image::tmpfs(8), support::image::Image::tmpfs(8));
    let mut layers = Layers::new(&[&[]]);
    for (image, name) in [(&first, "x"), (&second, "y")] {
        fs::write(image.path().join(name), name).unwrap();
        layers.lowers.push(image.path());
    }
    layers.note_lowers();
    let raw = |image: &support::image::Image, name| image.path().join(name).metadata().unwrap().ino();
    assert_eq!(raw(&first, "x"), raw(&second, "y"), "two fresh tmpfs number alike");
    let mount = LaminaMount::new(&layers);
    assert_ne!(numbers(&mount, &["x"]), numbers(&mount, &["y"]));
    Tree::read(mount.path());
}
