//! An index against a model, and against whatever bytes come in its place.

use super::format::{HEADER_BYTES, Header, Section, seal};
use super::view::{Index, NodeId};
use super::{Content, IndexError, IndexWriter, LayerRecord, Part};
use crate::layer::{DirMarks, Layer, LayerId};
use crate::sys::stat::{Stat, Timestamp};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A file as the model keeps it; directories by the names in them.
#[derive(Clone, Debug, PartialEq, Eq)]
enum File {
    Leaf { size: u64, xattrs: BTreeMap<String, Vec<u8>> },
    Link { target: Vec<u8> },
    Dir { mode: u32, parts: u16, names: BTreeMap<OsString, File> },
}

fn stat(ino: u64, mode: u32, size: u64) -> Stat {
    let time = |seconds| Timestamp { seconds, nanoseconds: 5 };
    Stat {
        dev: 0,
        ino,
        mode,
        nlink: 1,
        uid: 7,
        gid: 8,
        rdev: 9,
        size,
        blocks: 11,
        blksize: 4096,
        atime: time(-1),
        mtime: time(2),
        ctime: time(3),
        btime: time(4),
    }
}

fn layers(count: u16) -> Vec<LayerRecord> {
    (0..count)
        .map(|at| LayerRecord { uuid: [1; 16], ino: u64::from(at), ctime: Timestamp::default(), overridden: false })
        .collect()
}

const LAYERS: u16 = 3;

fn parts(count: u16) -> Vec<Part> {
    let marks = DirMarks { opaque: false, xattr_whiteouts: true };
    (1..=count).map(|layer| Part { layer: LayerId(layer), ino: u64::from(layer) * 10, marks }).collect()
}

fn add(writer: &mut IndexWriter, file: &File, ino: &mut u64) -> NodeId {
    *ino += 1;
    let layer = LayerId(1);
    let pairs = |xattrs: &BTreeMap<String, Vec<u8>>| {
        xattrs.iter().rev().map(|(name, value)| (name.clone().into_bytes(), value.clone())).collect()
    };
    match file {
        File::Leaf { size, xattrs } => {
            writer.add(&stat(*ino, libc::S_IFREG | 0o644, *size), layer, pairs(xattrs), Content::Leaf)
        }
        File::Link { target } => {
            writer.add(&stat(*ino, libc::S_IFLNK | 0o777, 0), layer, Vec::new(), Content::Link(target))
        }
        File::Dir { mode, parts: count, names } => {
            let stat = stat(*ino, libc::S_IFDIR | mode, 4096);
            let dir = writer.add(&stat, layer, Vec::new(), Content::Dir(&parts(*count))).expect("it is small");
            let children: Vec<_> = names.iter().map(|(name, file)| (name, add(writer, file, ino))).collect();
            writer.fill(dir, &children).map(|()| dir)
        }
    }
    .expect("it is small")
}

fn write(root: &File) -> Vec<u8> {
    let mut writer = IndexWriter::new(layers(LAYERS));
    add(&mut writer, root, &mut 0);
    writer.bytes()
}

fn read(index: &Index, id: NodeId) -> File {
    let node = index.node(id).expect("the node is there");
    assert_eq!(node.stat, stat(node.stat.ino, node.stat.mode, node.stat.size), "all attributes come back");
    let mode = node.stat.mode & 0o7777;
    match node.stat.format() {
        libc::S_IFREG => {
            let value = |name: &OsStr| index.xattr(id, name).expect("a listed attribute is there").to_vec();
            let xattrs = index.xattr_names(id).map(|name| (name.to_str().expect("ASCII").to_owned(), value(name)));
            let xattrs: BTreeMap<_, _> = xattrs.collect();
            assert_eq!(node.has_xattrs, !xattrs.is_empty());
            File::Leaf { size: node.stat.size, xattrs }
        }
        libc::S_IFLNK => File::Link { target: index.link_target(id).expect("a link has a target").to_vec() },
        _ => {
            let found: Vec<Part> = index.parts(id).collect();
            assert_eq!(found, parts(found.len() as u16));
            let names = index.entries(id).map(|(name, child)| {
                assert_eq!(index.find(id, name), Some(child), "a listed name is found");
                let absent = [name.as_bytes(), b"~"].concat();
                assert_eq!(index.find(id, OsStr::from_bytes(&absent)), None);
                (name.to_owned(), read(index, child))
            });
            File::Dir { mode, parts: found.len() as u16, names: names.collect() }
        }
    }
}

fn any_file() -> impl Strategy<Value = File> {
    let xattrs = prop::collection::btree_map("user\\.[a-c]", prop::collection::vec(any::<u8>(), 0..4), 0..3);
    let leaf = prop_oneof![
        (any::<u64>(), xattrs).prop_map(|(size, xattrs)| File::Leaf { size, xattrs }),
        prop::collection::vec(1..=255_u8, 1..20).prop_map(|target| File::Link { target }),
    ];
    leaf.prop_recursive(4, 200, 40, any_dir)
}

fn any_dir(file: impl Strategy<Value = File>) -> impl Strategy<Value = File> {
    let names = prop::collection::btree_map("[a-z]{1,9}".prop_map(OsString::from), file, 0..40);
    (0..0o10000_u32, 1..=LAYERS, names).prop_map(|(mode, parts, names)| File::Dir { mode, parts, names })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(root in any_dir(any_file())) {
        let index = Index::from_bytes(Path::new("test"), &write(&root)).expect("it opens");
        prop_assert_eq!(read(&index, index.root()), root);
        index.verify(Path::new("test")).expect("it is whole");
    }
}

fn sample() -> Vec<u8> {
    let leaf = |size| File::Leaf { size, xattrs: BTreeMap::from([("user.a".to_owned(), vec![size as u8 % 3])]) };
    let many = (0..60).map(|n| (format!("file-with-number-{n}").into(), leaf(n))).collect();
    let link = File::Link { target: b"to/somewhere".to_vec() };
    let inner = File::Dir { mode: 0o755, parts: 2, names: BTreeMap::from([("l".into(), link), ("f".into(), leaf(1))]) };
    let many = File::Dir { mode: 0o700, parts: 3, names: many };
    let names = BTreeMap::from([("many".into(), many), ("inner".into(), inner), ("g".into(), leaf(2))]);
    write(&File::Dir { mode: 0o755, parts: 3, names })
}

/// Asks everything of every node, and of some that do not exist.
fn ask_everything(index: &Index) {
    let nodes = index.header().records(Section::Nodes) as u32;
    for node in (0..nodes + 2).chain([u32::MAX]).map(NodeId) {
        let found = index.node(node);
        assert!(found.is_none() || node.0 < nodes);
        assert!(index.link_target(node).is_none_or(|target| target.len() < 4096));
        assert!(index.parts(node).count() <= usize::from(u16::MAX));
        for name in index.xattr_names(node).take(100) {
            assert!(index.xattr(node, name).is_none_or(|value| value.len() <= 65536));
        }
        for (name, child) in index.entries(node).take(100) {
            assert!(!name.as_bytes().contains(&b'/') && name != "..");
            assert!(child.0 < nodes);
            assert!(index.find(node, name).is_none_or(|found| found.0 < nodes));
        }
        assert!(index.find(node, OsStr::new("file-with-number-7")).is_none_or(|found| found.0 < nodes));
    }
    // Any answer will do.
    if let Err(what) = index.check_content() {
        assert!(!what.is_empty());
    }
}

#[test]
fn every_truncation_is_refused() {
    let whole = sample();
    for length in 0..whole.len() {
        let refused = Index::from_bytes(Path::new("cut"), &whole[..length]).err();
        let refused = refused.unwrap_or_else(|| panic!("{length} bytes of {} are taken for an index", whole.len()));
        assert!(refused.to_string().starts_with("index cut is") || length < 8, "{refused}");
    }
}

/// A hostile file has a header whose checksum is right: it lies about everything else.
#[test]
fn no_flipped_byte_leads_out_of_the_file() {
    let whole = sample();
    let mut random = 0x1234_5678_9abc_def1_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    let mut opened = 0;
    for _ in 0..10_000 {
        let mut bytes = whole.clone();
        for _ in 0..=next(3) {
            // Half of them in what refers to other things: the header's numbers, and the tables.
            let at =
                if next(8) == 0 { next(HEADER_BYTES - 32) } else { HEADER_BYTES + next(whole.len() - HEADER_BYTES) };
            bytes[at] = [bytes[at] ^ 1 << next(8), 0, 0xff, next(256) as u8][next(4)];
        }
        let mut header = *bytes.first_chunk::<HEADER_BYTES>().expect("it is longer");
        seal(&mut header);
        bytes[..HEADER_BYTES].copy_from_slice(&header);
        if let Ok(index) = Index::from_bytes(Path::new("flipped"), &bytes) {
            opened += 1;
            ask_everything(&index);
            let changed = bytes[HEADER_BYTES..] != whole[HEADER_BYTES..];
            assert!(!changed || index.verify(Path::new("flipped")).is_err(), "the checksum notices a change");
        }
    }
    assert!(opened > 5_000, "only {opened} reached the tables");
}

#[test]
fn names_that_collide_are_told_apart() {
    // So many that some have the same upper half of the hash.
    let names: Vec<String> = (0..400_000).map(|n| format!("{n}")).collect();
    let mut writer = IndexWriter::new(layers(1));
    let root = writer.add(&stat(2, libc::S_IFDIR, 0), LayerId(1), Vec::new(), Content::Dir(&parts(1))).expect("fits");
    let children: Vec<_> = names
        .iter()
        .zip(10..)
        .map(|(name, ino)| {
            let file = stat(ino, libc::S_IFREG, 0);
            (name, writer.add(&file, LayerId(1), Vec::new(), Content::Leaf).expect("fits"))
        })
        .collect();
    writer.fill(root, &children).expect("fits");
    let index = Index::from_bytes(Path::new("large"), &writer.bytes()).expect("it opens");
    for (name, node) in &children {
        assert_eq!(index.find(root, OsStr::new(name)), Some(*node), "{name}");
    }
    index.check_content().expect("it is whole");
    assert_eq!(index.entries(root).nth(399_999), index.entries(root).last());
}

#[test]
fn hard_links_are_one_node_in_one_layer() {
    let mut writer = IndexWriter::new(layers(2));
    let mut file = stat(5, libc::S_IFREG, 0);
    file.nlink = 2;
    assert_eq!(writer.linked(LayerId(1), &file), None);
    let node = writer.add(&file, LayerId(1), Vec::new(), Content::Leaf).expect("fits");
    assert_eq!(writer.linked(LayerId(1), &file), Some(node));
    assert_eq!(writer.linked(LayerId(2), &file), None);
}

fn layer_at(path: &Path) -> Layer {
    Layer::new(LayerId(1), crate::sys::open::open_root(path).expect("opens"), false).expect("is a layer")
}

fn index_of(layer: &Layer, out: &Path) {
    let mut writer = IndexWriter::new(vec![LayerRecord::of(layer).expect("stat")]);
    let root = writer.add(&stat(2, libc::S_IFDIR, 0), LayerId(1), Vec::new(), Content::Dir(&parts(1))).expect("fits");
    writer.fill::<&OsStr>(root, &[]).expect("fits");
    writer.finish(out).expect("is written");
}

#[test]
fn only_the_layers_it_was_built_of_are_served() {
    let base = tempfile::tempdir().expect("a directory");
    let (ours, other, file) = (base.path().join("ours"), base.path().join("other"), base.path().join("index"));
    for dir in [&ours, &other] {
        std::fs::create_dir(dir).expect("is made");
    }
    index_of(&layer_at(&ours), &file);
    let layer = layer_at(&ours);
    let index = Index::open(&file, &[&layer]).expect("it is theirs");
    assert_eq!(index.node(index.root()).map(|node| node.stat.dev), Some(layer.dev()));
    let foreign = Index::open(&file, &[&layer_at(&other)]).expect_err("it is not theirs");
    assert!(matches!(foreign, IndexError::OtherLayer { number: 1, .. }), "{foreign}");
    let more = Index::open(&file, &[&layer, &layer_at(&other)]).expect_err("one too many");
    assert!(matches!(more, IndexError::LayerCount { built: 1, given: 2, .. }), "{more}");
    std::fs::write(ours.join("new"), "").expect("is written");
    let changed = Index::open(&file, &[&layer_at(&ours)]).expect_err("the layer has changed");
    assert!(changed.to_string().contains("the change time of its directory differs"), "{changed}");
    assert_eq!(std::fs::read_dir(base.path()).expect("is read").count(), 3, "no temporary file is left");
}

#[test]
fn what_is_no_index_is_told_so() {
    let base = tempfile::tempdir().expect("a directory");
    let file = base.path().join("index");
    let refusal = |bytes: &[u8]| {
        std::fs::write(&file, bytes).expect("is written");
        Index::open_any(&file).expect_err("it is refused").to_string()
    };
    assert!(refusal(b"").contains("is not an index"));
    assert!(refusal(b"#!/bin/sh\n").contains("is not an index"));
    let mut newer = sample();
    newer[8] = 2;
    assert!(refusal(&newer).contains("has version 2 and this program knows 1"));
    let mut damaged = sample();
    *damaged.last_mut().expect("is not empty") ^= 1;
    assert!(refusal(&damaged).contains("its checksum is wrong"));
    assert!(Index::open_any(base.path()).expect_err("a directory").to_string().contains("is not an index"));
    assert!(Index::open_any(&base.path().join("none")).expect_err("absent").to_string().contains("check that"));
}

#[test]
fn the_same_files_give_the_same_bytes() {
    assert_eq!(sample(), sample());
    assert_eq!(Header::parse(&sample()).map(|header| header.directories), Ok(3));
}
