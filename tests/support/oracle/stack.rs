//! Random lower stacks. It owns what a layer may hold and how that is spelled on disk; what the stack shows is the model's. Invariant: any
//! list of items is a valid layer, because `settle` drops the ones that do not fit; so every shrunk stack is valid too.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;

use super::op::{Fill, PLACES, Place};
use crate::literal::{self, Entry, Opaque};

/// How a whiteout is spelled in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Character device 0:0.
    Device,
    /// An xattr on an empty file.
    Xattr,
    /// `.wh.NAME`.
    Name,
}

/// What one layer says of one name.
#[derive(Debug, Clone)]
pub enum Item {
    /// A regular file; with an xattr or not.
    File {
        /// Its content.
        data: Fill,
        /// Permission bits.
        mode: u32,
        /// Whether it has `user.one`.
        xattr: bool,
    },
    /// A file with a hole before its data.
    Sparse {
        /// The length of the hole.
        hole: u64,
        /// What follows it.
        data: Fill,
    },
    /// One more name of a file of the same layer.
    Link(Place),
    /// A symbolic link.
    Symlink(&'static str),
    /// A named pipe.
    Fifo,
    /// A directory, opaque or not.
    Dir {
        /// Permission bits.
        mode: u32,
        /// How it is marked opaque, if it is.
        opaque: Option<Opaque>,
    },
    /// Nothing below shows under this name.
    Whiteout(Mark),
}

/// Which spellings a stack is built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Formats {
    /// As generated: all that Lamina must read; `trusted.` ones only as root.
    All {
        /// Whether `trusted.` attributes can be written.
        privileged: bool,
    },
    /// The ones that a privileged kernel overlayfs reads, in place of each other one.
    Kernel,
}

/// Lower layers, topmost first, each a list of items in the order in which they are built.
#[derive(Debug, Clone)]
pub struct Stack(pub Vec<Vec<(Place, Item)>>);

fn item() -> impl Strategy<Value = Item> {
    let fill =
        (select(&b"LMN"[..]), select(&[0_usize, 5, 4096, 9000][..])).prop_map(|(byte, length)| Fill { byte, length });
    let mark = select(&[Mark::Device, Mark::Xattr, Mark::Name][..]);
    let opaque = select(
        &[None, None, None, Some(Opaque::User), Some(Opaque::Trusted), Some(Opaque::FuseOverlayfs), Some(Opaque::File)]
            [..],
    );
    prop_oneof![
        6 => (fill.clone(), select(&[0o644_u32, 0o600, 0o444, 0o755][..]), any::<bool>())
            .prop_map(|(data, mode, xattr)| Item::File { data, mode, xattr }),
        1 => (select(&[4096_u64, 65_536][..]), fill).prop_map(|(hole, data)| Item::Sparse { hole, data }),
        3 => select(&PLACES[..12]).prop_map(Item::Link),
        1 => select(&["nowhere", "a/b"][..]).prop_map(Item::Symlink),
        1 => Just(Item::Fifo),
        4 => (select(&[0o755_u32, 0o700][..]), opaque).prop_map(|(mode, opaque)| Item::Dir { mode, opaque }),
        3 => mark.prop_map(Item::Whiteout),
    ]
}

/// An item, and where it is put.
pub fn placed() -> impl Strategy<Value = (Place, Item)> {
    let place = prop_oneof![2 => select(&PLACES[..4]), 5 => select(&PLACES[4..12]), 1 => select(&PLACES[12..])];
    (place, item())
}

/// One to three layers.
pub fn stack() -> impl Strategy<Value = Stack> {
    let layer = prop::collection::vec(placed(), 0..10).prop_map(settle);
    prop::collection::vec(layer, 1..4).prop_map(Stack)
}

/// Keeps the first item of each name, adds the parents it needs, and drops what cannot exist in one directory tree.
pub(super) fn settle(items: Vec<(Place, Item)>) -> Vec<(Place, Item)> {
    let mut taken: BTreeMap<Place, Item> = BTreeMap::new();
    let mut layer = Vec::new();
    for (path, item) in items {
        let parent = path
            .split_once('/')
            .map(|(top, _)| PLACES[..4].iter().find(|place| **place == top).copied().unwrap_or(PLACES[0]));
        let blocked = parent.and_then(|parent| taken.get(parent)).is_some_and(|item| !matches!(item, Item::Dir { .. }));
        let dangling = match &item {
            Item::Link(from) => !matches!(
                taken.get(from),
                Some(Item::File { .. } | Item::Sparse { .. } | Item::Symlink(_) | Item::Fifo)
            ),
            _ => false,
        };
        if taken.contains_key(path) || blocked || dangling {
            continue;
        }
        if let Some(parent) = parent.filter(|parent| !taken.contains_key(parent)) {
            let plain = Item::Dir { mode: 0o755, opaque: None };
            taken.insert(parent, plain.clone());
            layer.push((parent, plain));
        }
        taken.insert(path, item.clone());
        layer.push((path, item));
    }
    layer
}

/// The modification time of an item of a layer: no two are alike.
pub fn mtime(layer: usize, path: Place) -> i64 {
    let at = PLACES.iter().position(|place| *place == path).unwrap_or(PLACES.len());
    1_000_000 + 1000 * layer as i64 + at as i64
}

impl Stack {
    /// The layers as tree literals.
    pub fn literals(&self, formats: Formats) -> Vec<Vec<Entry>> {
        let shown = |at: usize, item: &&(Place, Item)| formats != Formats::Kernel || !self.stray_whiteout(at, item);
        let layer = |(at, items): (usize, &Vec<(Place, Item)>)| {
            let items: Vec<_> = items.iter().filter(|item| shown(at, item)).cloned().collect();
            literals(at, &items, formats)
        };
        self.0.iter().enumerate().map(layer).collect()
    }

    /// Whether this is a whiteout in a directory that goes on in no layer below. Nobody writes such, and the kernel's overlayfs lists
    /// them, as it hands the listing of a directory from one layer through.
    fn stray_whiteout(&self, layer: usize, (path, item): &(Place, Item)) -> bool {
        let Some((parent, _)) = path.split_once('/').filter(|_| matches!(item, Item::Whiteout(_))) else {
            return false;
        };
        let of_parent =
            |items: &[(Place, Item)]| items.iter().find(|(path, _)| *path == parent).map(|(_, item)| item.clone());
        if matches!(of_parent(&self.0[layer]), Some(Item::Dir { opaque: Some(_), .. })) {
            return true;
        }
        let below = self.0[layer + 1..].iter().find_map(|items| of_parent(items));
        !matches!(below, Some(Item::Dir { .. }))
    }
}

fn literals(layer: usize, items: &[(Place, Item)], formats: Formats) -> Vec<Entry> {
    let opaque: BTreeMap<Place, bool> =
        items.iter().map(|(path, item)| (*path, matches!(item, Item::Dir { opaque: Some(_), .. }))).collect();
    let build = |(path, item): &(Place, Item)| {
        let in_opaque = path.split_once('/').is_some_and(|(parent, _)| opaque.get(parent).copied().unwrap_or(false));
        let entry = match item {
            Item::File { data, mode, xattr } => {
                let entry = literal::file(path, data.bytes()).mode(*mode);
                if *xattr { entry.xattr("user.one", "lower") } else { entry }
            }
            Item::Sparse { hole, data } => {
                literal::sparse(path, hole + data.length as u64, &[(*hole, &data.bytes())]).mode(0o644)
            }
            Item::Link(from) => return literal::link(path, from),
            Item::Symlink(target) => literal::symlink(path, target),
            Item::Fifo => literal::fifo(path).mode(0o644),
            Item::Dir { mode, opaque } => {
                let entry = literal::dir(path).mode(*mode);
                opaque.map_or(entry.clone(), |format| entry.opaque(spelled(format, formats)))
            }
            Item::Whiteout(mark) => match mark {
                // Inside `opaque=y` nobody looks for xattr whiteouts: the two marks share one attribute.
                Mark::Xattr if formats != Formats::Kernel && !in_opaque => literal::xattr_whiteout(path, "user."),
                Mark::Name if formats != Formats::Kernel => literal::dot_whiteout(path),
                _ => literal::whiteout(path),
            },
        };
        entry.mtime(mtime(layer, path))
    };
    items.iter().map(build).collect()
}

fn spelled(format: Opaque, formats: Formats) -> Opaque {
    match (formats, format) {
        (Formats::Kernel, _) => Opaque::Trusted,
        (Formats::All { privileged: false }, Opaque::Trusted) => Opaque::User,
        _ => format,
    }
}
