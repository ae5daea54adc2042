//! The model: a POSIX tree in memory, with files as identities and handles that hold them. It owns the merge of a stack and the state; what
//! each operation must answer is in `expect`. Invariant: it never looks at a disk.

use std::collections::BTreeMap;

use super::op::{Fill, Place, SLOTS};
use super::stack::{Item, Stack, mtime};
use super::{Errno, Reply};
use crate::tree::{self, Tree};

/// Index of a node of the model; never reused.
pub type Id = usize;

#[derive(Debug, Clone)]
pub(super) enum Body {
    File(Vec<u8>),
    Dir { entries: BTreeMap<String, Id>, movable: bool },
    Symlink(String),
    Fifo,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub body: Body,
    pub mode: u32,
    pub owner: (u32, u32),
    /// `None`: a layer above hides a name of the lower file, and both counts that one can defend are accepted.
    pub nlink: Option<u64>,
    pub mtime: Option<i64>,
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Handle {
    pub id: Id,
    pub writable: bool,
}

/// Why an operation has no reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It makes no sense here (an empty slot, a link that chmod would follow): not carried out at all.
    Skip,
    /// It must fail, with one of these.
    Errno(&'static [Errno]),
}

/// What an operation must answer.
pub type Expected = Result<Reply, Refusal>;

/// The union as it must be.
#[derive(Debug, Clone)]
pub struct Model {
    pub(super) nodes: Vec<Node>,
    pub(super) handles: [Option<Handle>; SLOTS],
    pub(super) privileged: bool,
    pub(super) owner: (u32, u32),
}

pub(super) const ROOT: Id = 0;

impl Node {
    pub(super) fn new(body: Body, mode: u32, owner: (u32, u32)) -> Node {
        Node { body, mode, owner, nlink: Some(1), mtime: None, xattrs: BTreeMap::new() }
    }

    pub(super) fn is_dir(&self) -> bool {
        matches!(self.body, Body::Dir { .. })
    }
}

pub(super) fn empty_dir(movable: bool) -> Body {
    Body::Dir { entries: BTreeMap::new(), movable }
}

impl Model {
    /// What `stack` shows to a user that is privileged or not and creates files as `owner`.
    pub fn new(stack: &Stack, privileged: bool, owner: (u32, u32)) -> Model {
        let root = Node::new(empty_dir(false), 0o755, owner);
        let mut model = Model { nodes: vec![root], handles: [None; SLOTS], privileged, owner };
        for (at, layer) in stack.0.iter().enumerate().rev() {
            model.lay(at, layer);
        }
        model.doubt_hidden_links();
        model
    }

    fn lay(&mut self, layer: usize, items: &[(Place, Item)]) {
        let mut placed: BTreeMap<Place, Id> = BTreeMap::new();
        for (path, item) in items {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            let parent = if parent.is_empty() { ROOT } else { placed[parent] };
            let id = match item {
                Item::Whiteout(_) => {
                    self.entries_mut(parent).remove(name);
                    continue;
                }
                Item::Link(from) => {
                    let id = placed[from];
                    self.nodes[id].nlink = self.nodes[id].nlink.map(|count| count + 1);
                    id
                }
                Item::Dir { mode, opaque } => {
                    let below = self.entry(parent, name).filter(|id| opaque.is_none() && self.nodes[*id].is_dir());
                    let id = below.unwrap_or_else(|| self.add(empty_dir(false), *mode));
                    self.nodes[id].mode = *mode;
                    id
                }
                Item::File { data, mode, xattr } => {
                    let id = self.add(Body::File(data.bytes()), *mode);
                    if *xattr {
                        self.nodes[id].xattrs.insert("user.one".into(), b"lower".to_vec());
                    }
                    id
                }
                Item::Sparse { hole, data } => self.add(Body::File(after_hole(*hole, *data)), 0o644),
                Item::Symlink(target) => self.add(Body::Symlink((*target).into()), 0o777),
                Item::Fifo => self.add(Body::Fifo, 0o644),
            };
            if !matches!(item, Item::Link(_)) {
                self.nodes[id].mtime = Some(mtime(layer, path));
            }
            placed.insert(path, id);
            self.entries_mut(parent).insert(name.into(), id);
        }
    }

    /// Where a layer above hides one of several names, "number of names in the layer" and "number of names that show" are both right.
    fn doubt_hidden_links(&mut self) {
        let mut shown: BTreeMap<Id, u64> = BTreeMap::new();
        for node in self.tree().0.values() {
            *shown.entry(node.identity as Id).or_default() += 1;
        }
        for (id, count) in shown {
            if !self.nodes[id].is_dir() && self.nodes[id].nlink != Some(count) {
                self.nodes[id].nlink = None;
            }
        }
    }

    pub(super) fn add(&mut self, body: Body, mode: u32) -> Id {
        self.nodes.push(Node::new(body, mode, self.owner));
        self.nodes.len() - 1
    }

    pub(super) fn entries(&self, dir: Id) -> &BTreeMap<String, Id> {
        match &self.nodes[dir].body {
            Body::Dir { entries, .. } => entries,
            other => panic!("not a directory in the model: {other:?}"),
        }
    }

    pub(super) fn entries_mut(&mut self, dir: Id) -> &mut BTreeMap<String, Id> {
        match &mut self.nodes[dir].body {
            Body::Dir { entries, .. } => entries,
            other => panic!("not a directory in the model: {other:?}"),
        }
    }

    pub(super) fn entry(&self, dir: Id, name: &str) -> Option<Id> {
        self.entries(dir).get(name).copied()
    }

    /// Closes every handle, as a remount does.
    pub fn close_all(&mut self) {
        self.handles = [None; SLOTS];
    }

    /// The whole tree; `identity` is the model's own, and the root's times are nobody's business.
    pub fn tree(&self) -> Tree {
        let mut tree = Tree::default();
        self.collect(ROOT, ".", &mut tree);
        tree
    }

    fn collect(&self, id: Id, path: &str, tree: &mut Tree) {
        let node = &self.nodes[id];
        let body = match &node.body {
            Body::File(content) => tree::Body::File(content.clone()),
            Body::Dir { .. } => tree::Body::Dir,
            Body::Symlink(target) => tree::Body::Symlink(target.clone().into_bytes()),
            Body::Fifo => tree::Body::Fifo,
        };
        let (uid, gid) = node.owner;
        let shown = tree::Node {
            body,
            mode: node.mode,
            uid,
            gid,
            nlink: node.nlink,
            mtime: node.mtime,
            xattrs: node.xattrs.clone(),
            identity: id as u64,
        };
        tree.0.insert(path.into(), shown);
        if let Body::Dir { entries, .. } = &node.body {
            for (name, child) in entries {
                let child_path = if path == "." { name.clone() } else { format!("{path}/{name}") };
                self.collect(*child, &child_path, tree);
            }
        }
    }
}

fn after_hole(hole: u64, data: Fill) -> Vec<u8> {
    let mut content = vec![0; hole as usize];
    content.extend(data.bytes());
    content
}
