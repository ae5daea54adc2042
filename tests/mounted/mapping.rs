//! The options that change owners and modes: mappings, squashing, and permissions kept in an xattr.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use support::lamina::Lamina;
use support::literal::xattr;
use support::{Layers, dir, file, machine, needs};

fn owner(path: impl AsRef<Path>) -> (u32, u32) {
    let stat = path.as_ref().symlink_metadata().unwrap();
    (stat.uid(), stat.gid())
}

#[test]
fn mappings_apply_in_both_directions() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[
        file("mapped", "").owner(100_000, 200_005),
        file("unmapped", "").owner(5, 5),
        dir("d").owner(100_000, 200_000),
    ]]);
    let mut mount = Lamina::on(&layers).option("uidmapping=100000:0:65536").option("gidmapping=200000:0:65536").mount();
    assert_eq!(owner(mount.join("mapped")), (0, 5));
    assert_eq!(owner(mount.join("unmapped")), (65534, 65534), "the overflow ids");
    fs::write(mount.join("d/new"), "").unwrap();
    std::os::unix::fs::chown(mount.join("mapped"), Some(7), Some(8)).unwrap();
    for _ in 0..2 {
        assert_eq!(owner(mount.join("d/new")), (0, 0));
        assert_eq!(owner(mount.join("mapped")), (7, 8));
        mount.remount();
    }
    assert_eq!(owner(layers.upper.join("d/new")), (100_000, 200_000));
    assert_eq!(owner(layers.upper.join("mapped")), (100_007, 200_008));
    assert_eq!(owner(layers.upper.join("d")), (100_000, 200_000), "a copied parent keeps its owner on disk");
}

#[test]
fn copy_up_keeps_an_owner_that_no_mapping_shows() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("f", "x").owner(5, 6)]]);
    let mount = Lamina::on(&layers).option("uidmapping=100000:0:65536,gidmapping=100000:0:65536").mount();
    fs::set_permissions(mount.join("f"), fs::Permissions::from_mode(0o600)).unwrap();
    drop(mount);
    assert_eq!(owner(layers.upper.join("f")), (5, 6));
}

#[test]
fn squash_shows_one_owner() {
    needs!(machine::mounts());
    for (options, expected) in
        [("squash_to_root", (0, 0)), ("squash_to_uid=7,squash_to_gid=8", (7, 8)), ("squash_to_uid=7", (7, 6))]
    {
        let layers = Layers::new(&[&[file("f", "x").owner(5, 6), dir("d").owner(9, 6)]]);
        let mount = Lamina::on(&layers).option(options).mount();
        assert_eq!(owner(mount.join("f")), expected, "{options}");
        assert_eq!(owner(mount.join("d")), expected, "{options}");
    }
}

/// Squashing beats the mappings, and a chown that cannot show is not an error: this is what unprivileged image unpacking relies on.
#[test]
fn squash_to_root_swallows_chown() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("f", "x").owner(5, 6)]]);
    let mount = Lamina::on(&layers).option("squash_to_root,uidmapping=0:1000:1").mount();
    std::os::unix::fs::chown(mount.join("f"), Some(33), Some(33)).unwrap();
    assert_eq!(owner(mount.join("f")), (0, 0));
}

const USER: &str = "user.containers.override_stat";
const PRIVILEGED: &str = "security.fuseoverlayfs.override_stat";

#[test]
fn permissions_in_an_xattr_are_shown() {
    needs!(machine::mounts());
    for (mode, name) in [("1", PRIVILEGED), ("2", USER), ("2", "user.fuseoverlayfs.override_stat")] {
        let lower = [
            dir("d").mode(0o755).xattr(name, "10:20:0750:dir"),
            file("f", "x").mode(0o755).xattr(name, "10:20:4640:file"),
            file("plain", "x").mode(0o755).xattr(name, "1:2:0600"),
            file("disk", "").mode(0o755).xattr(name, "0:6:0660:block-8-16"),
            file("null", "").mode(0o755).xattr(name, "0:0:0666:char-1-3"),
            file("pipe", "").mode(0o755).xattr(name, "0:0:0622:pipe"),
        ];
        let layers = Layers::new(&[&lower]);
        let mount = Lamina::on(&layers).option(&format!("xattr_permissions={mode}")).mount();
        let stat = |path: &str| mount.join(path).symlink_metadata().unwrap();
        let shown = |path: &str| (stat(path).uid(), stat(path).gid(), stat(path).mode() & 0o7777);
        assert_eq!(shown("d"), (10, 20, 0o750), "{name}");
        assert_eq!(shown("f"), (10, 20, 0o4640), "{name}");
        assert_eq!(shown("plain"), (1, 2, 0o600), "{name}");
        assert!(stat("disk").file_type().is_block_device() && stat("null").file_type().is_char_device(), "{name}");
        assert_eq!(stat("disk").rdev(), rustix::fs::makedev(8, 16), "{name}: containers-storage writes dashes");
        assert_eq!(stat("null").rdev(), rustix::fs::makedev(1, 3), "{name}");
        assert!(stat("pipe").file_type().is_fifo(), "{name}");
        assert_eq!(xattr(&mount.join("f"), name), None, "the attribute itself does not show");
    }
}

#[test]
fn permissions_are_written_to_the_xattr_and_survive_remount() {
    needs!(machine::mounts());
    for (mode, name) in [("1", PRIVILEGED), ("2", USER)] {
        let layers = Layers::new(&[&[file("low", "x").mode(0o755).xattr(name, "10:20:0640:file")]]);
        let mut mount = Lamina::on(&layers).option(&format!("xattr_permissions={mode}")).mount();
        fs::write(mount.join("new"), "content").unwrap();
        fs::set_permissions(mount.join("new"), fs::Permissions::from_mode(0o4711)).unwrap();
        std::os::unix::fs::chown(mount.join("new"), Some(30), Some(40)).unwrap();
        fs::set_permissions(mount.join("new"), fs::Permissions::from_mode(0o4711)).unwrap();
        std::os::unix::fs::chown(mount.join("low"), Some(50), None).unwrap();
        fs::create_dir(mount.join("d")).unwrap();
        for _ in 0..2 {
            let stat = |path: &str| mount.join(path).metadata().unwrap();
            assert_eq!((stat("new").uid(), stat("new").gid(), stat("new").mode() & 0o7777), (30, 40, 0o4711), "{name}");
            assert_eq!((stat("low").uid(), stat("low").gid(), stat("low").mode() & 0o7777), (50, 20, 0o640), "{name}");
            assert_eq!(stat("d").mode() & 0o7777, 0o755, "{name}");
            mount.remount();
        }
        let disk = layers.upper.join("new").metadata().unwrap();
        assert_eq!((disk.uid(), disk.mode() & 0o7000), (0, 0), "nothing of it on the backing file");
        let value = String::from_utf8(xattr(&layers.upper.join("new"), name).unwrap()).unwrap();
        assert!(value.starts_with("30:40:4711"), "{value}");
    }
}
