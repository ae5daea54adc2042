//! Names of one lower file stay names of one file, over writes, unlinks and remounts.

use std::fs;
use std::os::unix::fs::MetadataExt;

use support::{Entry, LaminaMount, Layers, dir, file, link, machine, needs};

fn three_names() -> Vec<Entry> {
    vec![file("h1", "original"), link("h2", "h1"), dir("d"), link("d/h3", "h1")]
}

const NAMES: [&str; 3] = ["h1", "h2", "d/h3"];

fn assert_one_file(mount: &LaminaMount, names: &[&str], content: &str) {
    let first = mount.join(names[0]).metadata().unwrap();
    for name in names {
        let stat = mount.join(name).metadata().unwrap();
        assert_eq!(fs::read_to_string(mount.join(name)).unwrap(), content, "content of {name}");
        assert_eq!(stat.len(), content.len() as u64, "size of {name}");
        assert_eq!(stat.ino(), first.ino(), "st_ino of {name}");
        assert_eq!(stat.nlink(), names.len() as u64, "nlink of {name}");
    }
}

/// M1 of union-fs.md, the corruption of fuse-overlayfs #475: after a remount upper/h1 and lower/h2 both claimed the lower inode, and a read
/// of h1 gave the old bytes, cut or zero-padded to the new size. A commit then stored that.
#[test]
fn write_through_one_name_shows_through_all_after_remount() {
    needs!(machine::mounts());
    for first_looked_up in NAMES {
        let layers = Layers::new(&[&three_names()]);
        let mut mount = LaminaMount::new(&layers);
        fs::write(mount.join("h1"), "longer than the original").unwrap();
        assert_one_file(&mount, &NAMES, "longer than the original");
        mount.remount();
        assert_eq!(fs::read_to_string(mount.join(first_looked_up)).unwrap(), "longer than the original");
        assert_one_file(&mount, &NAMES, "longer than the original");
        layers.assert_lowers_untouched();
    }
}

/// What M1 did to a file that shrank: the old bytes came back at the new length.
#[test]
fn truncation_through_one_name_shows_through_all_after_remount() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&three_names()]);
    let mut mount = LaminaMount::new(&layers);
    fs::write(mount.join("d/h3"), "new").unwrap();
    mount.remount();
    assert_one_file(&mount, &NAMES, "new");
    layers.assert_lowers_untouched();
}

#[test]
fn write_after_remount_through_a_name_not_yet_copied_shows_through_all() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&three_names()]);
    let mut mount = LaminaMount::new(&layers);
    fs::write(mount.join("h1"), "first").unwrap();
    mount.remount();
    fs::write(mount.join("h2"), "second").unwrap();
    assert_one_file(&mount, &NAMES, "second");
    mount.remount();
    assert_one_file(&mount, &NAMES, "second");
    layers.assert_lowers_untouched();
}

#[test]
fn unlink_of_one_name_leaves_the_others_linked() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&three_names()]);
    let mut mount = LaminaMount::new(&layers);
    fs::remove_file(mount.join("h2")).unwrap();
    assert_one_file(&mount, &["h1", "d/h3"], "original");
    mount.remount();
    assert_one_file(&mount, &["h1", "d/h3"], "original");
    fs::write(mount.join("d/h3"), "later").unwrap();
    mount.remount();
    assert_one_file(&mount, &["h1", "d/h3"], "later");
    assert!(!mount.join("h2").exists());
    layers.assert_lowers_untouched();
}

#[test]
fn every_name_can_be_unlinked_after_a_write() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&three_names()]);
    let mut mount = LaminaMount::new(&layers);
    fs::write(mount.join("h1"), "x").unwrap();
    for (gone, left) in [("h1", &NAMES[1..]), ("h2", &NAMES[2..])] {
        fs::remove_file(mount.join(gone)).unwrap();
        assert_one_file(&mount, left, "x");
        mount.remount();
        assert_one_file(&mount, left, "x");
    }
    fs::remove_file(mount.join("d/h3")).unwrap();
    mount.remount();
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 1, "only the directory d is left");
    layers.assert_lowers_untouched();
}

#[test]
fn new_name_of_a_lower_file_counts_and_stays() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&three_names()]);
    let mut mount = LaminaMount::new(&layers);
    fs::hard_link(mount.join("h2"), mount.join("h4")).unwrap();
    let all = ["h1", "h2", "d/h3", "h4"];
    assert_one_file(&mount, &all, "original");
    mount.remount();
    assert_one_file(&mount, &all, "original");
    fs::write(mount.join("h4"), "through the new one").unwrap();
    mount.remount();
    assert_one_file(&mount, &all, "through the new one");
    layers.assert_lowers_untouched();
}

#[test]
fn rename_of_one_name_keeps_it_linked() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&three_names()]);
    let mut mount = LaminaMount::new(&layers);
    fs::rename(mount.join("h1"), mount.join("moved")).unwrap();
    let all = ["moved", "h2", "d/h3"];
    assert_one_file(&mount, &all, "original");
    fs::write(mount.join("h2"), "after").unwrap();
    mount.remount();
    assert_one_file(&mount, &all, "after");
    layers.assert_lowers_untouched();
}

/// rename(2) of one name of a file over another does nothing; on a union it must see that the two are one file.
#[test]
fn rename_over_another_name_of_the_same_file_does_nothing() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&three_names()]);
    let mut mount = LaminaMount::new(&layers);
    fs::rename(mount.join("h1"), mount.join("h2")).unwrap();
    assert_one_file(&mount, &NAMES, "original");
    fs::write(mount.join("h1"), "x").unwrap();
    mount.remount();
    fs::rename(mount.join("h1"), mount.join("d/h3")).unwrap();
    assert_one_file(&mount, &NAMES, "x");
}

/// chmod, chown and xattrs are of the file, not of the name that was used.
#[test]
fn attributes_set_through_one_name_show_through_all() {
    needs!(machine::mounts(), machine::owners());
    let layers = Layers::new(&[&three_names()]);
    let mut mount = LaminaMount::new(&layers);
    std::os::unix::fs::chown(mount.join("h1"), Some(7), Some(8)).unwrap();
    support::literal::set_xattr(&mount.join("h2"), "user.k", b"v").unwrap();
    for _ in 0..2 {
        for name in NAMES {
            let stat = mount.join(name).metadata().unwrap();
            assert_eq!((stat.uid(), stat.gid()), (7, 8), "owner of {name}");
            assert_eq!(support::literal::xattr(&mount.join(name), "user.k"), Some(b"v".to_vec()), "xattr of {name}");
        }
        mount.remount();
    }
    layers.assert_lowers_untouched();
}
