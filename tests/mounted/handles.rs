//! Descriptors follow the file: over copy-up, unlink and replacement, for read, write, fstat, ftruncate, fchmod and mmap. After each, the
//! lower layer is what it was.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};

use support::sys::SharedMap;
use support::{LaminaMount, Layers, file, machine, needs};

fn read_whole(file: &File) -> Vec<u8> {
    let mut content = vec![0; 1 << 20];
    let length = file.read_at(&mut content, 0).unwrap();
    content.truncate(length);
    content
}

fn open_rw(path: impl AsRef<std::path::Path>) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// M2 of union-fs.md: A opens read-only (the lower file), B truncates and writes (the copy), the pages are dropped, A reads: the old bytes
/// came in through A's descriptor, and as there is one page cache per inode, every later reader got them.
#[test]
fn read_through_an_old_descriptor_brings_nothing_stale_into_the_cache() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("f", vec![b'o'; 20_000])]]);
    let mount = LaminaMount::new(&layers);
    let reader = File::open(mount.join("f")).unwrap();
    assert_eq!(read_whole(&reader), vec![b'o'; 20_000]);
    let mut writer = OpenOptions::new().write(true).truncate(true).open(mount.join("f")).unwrap();
    writer.write_all(&[b'n'; 30_000]).unwrap();
    writer.sync_all().unwrap();
    machine::drop_pages(&reader);
    mount.drop_caches();
    assert_eq!(read_whole(&reader), vec![b'n'; 30_000], "through the descriptor opened before the copy-up");
    assert_eq!(fs::read(mount.join("f")).unwrap(), vec![b'n'; 30_000], "through a new one");
    layers.assert_lowers_untouched();
}

#[test]
fn descriptor_opened_before_copy_up_sees_each_later_write() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("f", "old bytes")]]);
    let mount = LaminaMount::new(&layers);
    let reader = File::open(mount.join("f")).unwrap();
    for content in ["new", "newer and longer than before", ""] {
        fs::write(mount.join("f"), content).unwrap();
        assert_eq!(read_whole(&reader), content.as_bytes());
        assert_eq!(reader.metadata().unwrap().len(), content.len() as u64);
    }
    layers.assert_lowers_untouched();
}

#[test]
fn two_writers_opened_before_copy_up_write_one_file() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("f", "0123456789")]]);
    let mount = LaminaMount::new(&layers);
    let (first, second) = (open_rw(mount.join("f")), open_rw(mount.join("f")));
    first.write_all_at(b"AA", 0).unwrap();
    second.write_all_at(b"BB", 4).unwrap();
    assert_eq!(read_whole(&first), b"AA23BB6789");
    drop((first, second));
    assert_eq!(fs::read(mount.join("f")).unwrap(), b"AA23BB6789");
    layers.assert_lowers_untouched();
}

/// fuse-overlayfs 2.0 dropped the inode at unlink: fstat, ftruncate and fchmod of an open file answered ENOENT.
fn exercise_nameless(open: &File, content: &[u8]) {
    assert_eq!(read_whole(open), content);
    assert_eq!(open.metadata().unwrap().nlink(), 0);
    open.write_all_at(b"more", content.len() as u64).unwrap();
    assert_eq!(read_whole(open), [content, b"more"].concat());
    open.set_len(2).unwrap();
    open.set_permissions(Permissions::from_mode(0o640)).unwrap();
    open.sync_all().unwrap();
    let stat = open.metadata().unwrap();
    assert_eq!((stat.len(), stat.mode() & 0o7777), (2, 0o640));
    machine::drop_pages(open);
    assert_eq!(read_whole(open), &content[..2]);
}

#[test]
fn unlinked_open_lower_file_takes_every_operation() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("f", "lower")]]);
    let mount = LaminaMount::new(&layers);
    let open = open_rw(mount.join("f"));
    fs::remove_file(mount.join("f")).unwrap();
    exercise_nameless(&open, b"lower");
    assert!(!mount.join("f").exists());
    drop(open);
    layers.assert_lowers_untouched();
}

#[test]
fn unlinked_open_new_file_takes_every_operation() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[]]);
    let mount = LaminaMount::new(&layers);
    fs::write(mount.join("f"), "upper").unwrap();
    let open = open_rw(mount.join("f"));
    fs::remove_file(mount.join("f")).unwrap();
    exercise_nameless(&open, b"upper");
    drop(open);
}

#[test]
fn file_replaced_by_rename_keeps_its_content_for_those_who_have_it_open() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("f", "lower"), file("g", "other lower")]]);
    let mount = LaminaMount::new(&layers);
    let open = open_rw(mount.join("f"));
    fs::rename(mount.join("g"), mount.join("f")).unwrap();
    assert_eq!(fs::read(mount.join("f")).unwrap(), b"other lower");
    exercise_nameless(&open, b"lower");
    assert_eq!(fs::read(mount.join("f")).unwrap(), b"other lower");
    drop(open);
    layers.assert_lowers_untouched();
}

/// The name is taken again while the first file is still open: two files, two contents.
#[test]
fn new_file_under_the_name_of_an_unlinked_open_one_is_another_file() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("f", "lower")]]);
    let mount = LaminaMount::new(&layers);
    let open = open_rw(mount.join("f"));
    let number = open.metadata().unwrap().ino();
    fs::remove_file(mount.join("f")).unwrap();
    fs::write(mount.join("f"), "second life").unwrap();
    exercise_nameless(&open, b"lower");
    assert_ne!(mount.join("f").metadata().unwrap().ino(), number, "two live files share a number");
    assert_eq!(fs::read(mount.join("f")).unwrap(), b"second life");
    drop(open);
    layers.assert_lowers_untouched();
}

/// How git writes objects: create 0444, write through the descriptor, rename. The mode forbids only later opens.
#[test]
fn file_created_read_only_is_written_through_its_descriptor() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[]]);
    let mut mount = LaminaMount::new(&layers);
    let mut open = OpenOptions::new().write(true).create_new(true).mode(0o444).open(mount.join("tmp")).unwrap();
    open.write_all(b"object").unwrap();
    open.sync_all().unwrap();
    fs::rename(mount.join("tmp"), mount.join("object")).unwrap();
    open.write_all(b" and more").unwrap();
    drop(open);
    mount.remount();
    assert_eq!(fs::read(mount.join("object")).unwrap(), b"object and more");
    assert_eq!(mount.join("object").metadata().unwrap().mode() & 0o7777, 0o444);
}

/// overlayfs.rst, "Non-standard behavior" b: there a shared mapping of a lower file never sees later writes. Here there is one page cache.
#[test]
fn shared_mapping_made_before_copy_up_sees_later_writes() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("f", vec![b'o'; 8192])]]);
    let mount = LaminaMount::new(&layers);
    let reader = File::open(mount.join("f")).unwrap();
    let mapping = SharedMap::new(&reader, 8192, false).unwrap();
    assert_eq!(mapping.bytes(), vec![b'o'; 8192]);
    let writer = OpenOptions::new().write(true).open(mount.join("f")).unwrap();
    writer.write_all_at(b"new", 4096).unwrap();
    writer.sync_all().unwrap();
    let expected = [vec![b'o'; 4096], b"new".to_vec(), vec![b'o'; 4093]].concat();
    assert_eq!(mapping.bytes(), expected);
    mapping.drop_pages().unwrap();
    assert_eq!(mapping.bytes(), expected, "after the pages were dropped");
    layers.assert_lowers_untouched();
}

#[test]
fn store_into_a_shared_mapping_of_a_lower_file_is_read_by_others() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("f", vec![b'o'; 8192])]]);
    let mut mount = LaminaMount::new(&layers);
    let reader = File::open(mount.join("f")).unwrap();
    {
        let writer = open_rw(mount.join("f"));
        let mapping = SharedMap::new(&writer, 8192, true).unwrap();
        mapping.store(4000, &[b'm'; 200]).unwrap();
    }
    let expected = [vec![b'o'; 4000], vec![b'm'; 200], vec![b'o'; 3992]].concat();
    assert_eq!(read_whole(&reader), expected);
    drop(reader);
    mount.remount();
    assert_eq!(fs::read(mount.join("f")).unwrap(), expected);
    layers.assert_lowers_untouched();
}

#[test]
fn append_through_two_descriptors_loses_nothing() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("log", "0")]]);
    let mount = LaminaMount::new(&layers);
    let append = || OpenOptions::new().append(true).open(mount.join("log")).unwrap();
    let (mut first, mut second) = (append(), append());
    for _ in 0..100 {
        first.write_all(b"a").unwrap();
        second.write_all(b"b").unwrap();
    }
    drop((first, second));
    assert_eq!(fs::read_to_string(mount.join("log")).unwrap(), format!("0{}", "ab".repeat(100)));
    layers.assert_lowers_untouched();
}

#[test]
fn directory_stream_opened_before_changes_lists_what_was_there() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("a", ""), file("b", ""), file("c", "")]]);
    let mount = LaminaMount::new(&layers);
    let mut stream = fs::read_dir(mount.path()).unwrap();
    let first = stream.next().unwrap().unwrap().file_name();
    fs::remove_file(mount.join("c")).unwrap();
    fs::write(mount.join("d"), "").unwrap();
    let rest: Vec<_> = stream.map(|entry| entry.unwrap().file_name()).collect();
    assert!(!rest.contains(&first), "one name twice");
    assert!(rest.iter().chain([&first]).any(|name| name == "a"), "a name that was there all the time is missing");
    let mut now = String::new();
    File::open(mount.join("d")).unwrap().read_to_string(&mut now).unwrap();
    let mut names: Vec<_> = fs::read_dir(mount.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["a", "b", "d"]);
}
