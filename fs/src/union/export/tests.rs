//! An index of real layers against a mount of the same layers.

use super::{build_index, open_lowers, verify_index};
use crate::index::{Index, IndexError, NodeId};
use crate::union::{Config, InodeNumber, Kind, Union};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What one layer does with a path.
#[derive(Clone, Debug)]
enum Deed {
    File(u8),
    Link,
    HardLink,
    Dir,
    Opaque,
    Whiteout,
    Xattr,
}

type Deeds = Vec<(Vec<&'static str>, Deed)>;

fn deeds() -> impl Strategy<Value = Deeds> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let deed = prop_oneof![
        any::<u8>().prop_map(Deed::File),
        Just(Deed::Link),
        Just(Deed::HardLink),
        Just(Deed::Dir),
        Just(Deed::Opaque),
        Just(Deed::Whiteout),
        Just(Deed::Xattr),
    ];
    prop::collection::vec((prop::collection::vec(name, 1..4), deed), 0..12)
}

/// Does what can be done; what meets a file of another kind is left out.
fn make_layer(root: &Path, deeds: &Deeds) {
    fs::create_dir_all(root).expect("is made");
    for (names, deed) in deeds {
        let path: PathBuf = names.iter().fold(root.to_owned(), |path, name| path.join(name));
        let (Some(parent), Some(last)) = (path.parent(), names.last()) else { continue };
        if fs::create_dir_all(parent).is_err() {
            continue;
        }
        let done = match deed {
            Deed::File(mode) => fs::write(&path, last)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o400 | u32::from(*mode)))),
            Deed::Link => symlink("to/nowhere", &path),
            Deed::HardLink => fs::hard_link(root.join("a"), &path),
            Deed::Dir => fs::create_dir(&path),
            Deed::Opaque => fs::create_dir_all(&path).and_then(|()| fs::write(path.join(".wh..wh..opq"), "")),
            Deed::Whiteout => fs::write(parent.join(format!(".wh.{last}")), ""),
            Deed::Xattr => fs::write(&path, last).and_then(|()| {
                let flags = rustix::fs::XattrFlags::empty();
                Ok(rustix::fs::lsetxattr(&path, "user.mark", last.as_bytes(), flags)?)
            }),
        };
        // What cannot be done in this layer is no part of it.
        drop(done);
    }
}

/// Walks both and compares all that a user can ask.
fn compare(union: &Union, index: &Index, dir: (InodeNumber, NodeId)) {
    let listing = union.read_dir(dir.0, 0).expect("lists");
    let names: BTreeSet<&OsStr> = listing.entries.iter().skip(2).map(|entry| &*entry.name).collect();
    let indexed: BTreeSet<&OsStr> = index.entries(dir.1).map(|(name, _)| name).collect();
    assert_eq!(indexed, names);
    for name in ["a", "b", "c", ".wh.a", "zz"].map(OsStr::new) {
        let shown = union.lookup(dir.0, name).expect("is asked");
        let found = index.find(dir.1, name);
        assert_eq!(found.is_some(), shown.is_some(), "{name:?}");
        let (Some(shown), Some(found)) = (shown, found) else { continue };
        let node = index.node(found).expect("is there");
        assert_eq!((node.stat.mode, node.stat.uid, node.stat.gid), (shown.mode, shown.uid, shown.gid));
        assert_eq!((node.stat.size, node.stat.blocks, node.stat.blksize), (shown.size, shown.blocks, shown.blksize));
        assert_eq!((node.stat.mtime, node.stat.ctime), (shown.mtime, shown.ctime));
        assert_eq!(node.stat.ino, shown.st_ino, "one device: numbers are shown as they are");
        let xattrs: Vec<u8> =
            index.xattr_names(found).flat_map(|name| [name.as_encoded_bytes(), b"\0"].concat()).collect();
        let hidden = |list: &[u8]| list.is_empty() || list.starts_with(b"user.mark\0");
        assert!(hidden(&xattrs));
        assert_eq!(xattrs, union.list_xattrs(shown.number).expect("lists"));
        match Kind::from_mode(shown.mode) {
            Kind::Directory => compare(union, index, (shown.number, found)),
            Kind::Symlink => {
                assert_eq!(index.link_target(found), union.read_link(shown.number).ok().as_deref());
            }
            _ => {
                assert_eq!(node.stat.nlink, shown.nlink);
                let value = union.xattr(shown.number, OsStr::new("user.mark")).ok();
                assert_eq!(index.xattr(found, OsStr::new("user.mark")), value.as_deref());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn an_index_says_what_a_mount_shows(stacks in prop::collection::vec(deeds(), 1..5)) {
        let base = tempfile::tempdir().expect("a directory");
        let lowers: Vec<PathBuf> = (0..stacks.len()).map(|at| base.path().join(at.to_string())).collect();
        for (root, deeds) in lowers.iter().zip(&stacks) {
            make_layer(root, deeds);
        }
        let (config, file) = (Config::new(lowers), base.path().join("index"));
        let built = build_index(&config, &file, |_| {}).expect("is built");
        let verified = verify_index(&file, Some(&config)).expect("is whole");
        prop_assert_eq!(&verified, &built);
        let stack = open_lowers(&config).expect("opens");
        let index = Index::open(&file, &stack.layers().collect::<Vec<_>>()).expect("is theirs");
        let union = Union::new(config).expect("opens");
        compare(&union, &index, (InodeNumber::ROOT, index.root()));
    }
}

#[test]
fn a_deep_tree_is_walked_with_few_descriptors() {
    let base = tempfile::tempdir().expect("a directory");
    let lowers: Vec<PathBuf> = (0..4).map(|at| base.path().join(at.to_string())).collect();
    let deep: PathBuf = (0..150).map(|depth| format!("d{depth}")).collect();
    for lower in &lowers {
        fs::create_dir_all(lower.join(&deep)).expect("is made");
        fs::create_dir(lower.join("d0/d1/e")).expect("is made");
    }
    let (config, file) = (Config::new(lowers), base.path().join("index"));
    let mut told = 0;
    let built = build_index(&config, &file, |names| told = names).expect("is built");
    assert_eq!((built.directories, built.names, told), (152, 151, 151));
    let index = Index::open_any(&file).expect("opens");
    let last = deep.iter().try_fold(index.root(), |dir, name| index.find(dir, name)).expect("is there");
    assert_eq!((index.parts(last).count(), index.entries(last).count()), (4, 0));
}

#[test]
fn an_index_that_cannot_be_written_leaves_nothing() {
    let base = tempfile::tempdir().expect("a directory");
    let lower = base.path().join("lower");
    fs::create_dir(&lower).expect("is made");
    let out = base.path().join("out");
    fs::create_dir(&out).expect("is made");
    let refused = build_index(&Config::new(vec![lower]), &out, |_| {}).expect_err("it is a directory");
    assert!(matches!(refused, IndexError::Write { .. }), "{refused}");
    assert_eq!(fs::read_dir(base.path()).expect("is read").count(), 2);
}
