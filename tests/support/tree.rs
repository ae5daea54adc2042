//! Tree snapshots: a directory tree read into memory, and the differences of two. It owns reading and comparing; it does not know what is
//! right. Invariant: a field that one side does not claim to know (`None`) is never a difference.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, FileTypeExt, MetadataExt};
use std::path::Path;

/// What an object is, with what only it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A regular file and its bytes.
    File(Vec<u8>),
    /// A directory.
    Dir,
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device and its number.
    CharDevice(u64),
    /// A block device and its number.
    BlockDevice(u64),
}

/// One object of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Type and content.
    pub body: Body,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names; `None` where the source cannot know.
    pub nlink: Option<u64>,
    /// Seconds of the modification time; `None` where it is not determined.
    pub mtime: Option<i64>,
    /// Extended attributes, without those of the kernel's overlayfs and of security modules.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Identity: equal for two names of one file. Compared as a grouping, never by value.
    pub identity: u64,
}

impl Node {
    /// Panics unless the other is alike in all but its identity.
    #[track_caller]
    pub fn eq_but_identity(&self, other: &Node) {
        let lines = compare(self, other, View::ALL);
        assert!(lines.is_empty(), "objects differ: {}", lines.join(", "));
    }
}

/// Which fields are compared beyond type, content, mode and owner.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// Modification times.
    pub mtimes: bool,
    /// Extended attributes.
    pub xattrs: bool,
    /// Link counts of everything but directories.
    pub nlinks: bool,
    /// Which names are one file.
    pub identity: bool,
}

impl View {
    /// Everything.
    pub const ALL: View = View { mtimes: true, xattrs: true, nlinks: true, identity: true };
    /// Everything but times.
    pub const TIMELESS: View = View { mtimes: false, ..View::ALL };
}

/// A directory tree: path from its root (`.` is the root itself) to object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<String, Node>);

impl Tree {
    /// Reads the tree at `root`, and checks on the way that every `d_ino` and `d_type` is what stat says.
    pub fn read(root: &Path) -> Tree {
        let mut tree = Tree::default();
        tree.add(root, ".", true);
        tree
    }

    /// The same without the check of `d_ino`: overlayfs does not keep that promise for a hard link in a directory of its own.
    pub fn read_despite_d_ino(root: &Path) -> Tree {
        let mut tree = Tree::default();
        tree.add(root, ".", false);
        tree
    }

    fn add(&mut self, root: &Path, path: &str, strict: bool) {
        let full = if path == "." { root.to_path_buf() } else { root.join(path) };
        let node = read_node(&full).unwrap_or_else(|error| panic!("{}: {error}", full.display()));
        let is_dir = node.body == Body::Dir;
        let twice = self.0.insert(path.into(), node);
        assert!(twice.is_none(), "{path} is listed twice");
        if !is_dir {
            return;
        }
        for entry in std::fs::read_dir(&full).unwrap_or_else(|error| panic!("read {}: {error}", full.display())) {
            let entry = entry.unwrap_or_else(|error| panic!("read {}: {error}", full.display()));
            let name = entry.file_name();
            let name = name.to_str().expect("test names are UTF-8");
            let child = if path == "." { name.to_owned() } else { format!("{path}/{name}") };
            self.add(root, &child, strict);
            let node = &self.0[&child];
            assert!(
                !strict || entry.ino() == node.identity,
                "d_ino of {child} is {}, st_ino {}",
                entry.ino(),
                node.identity
            );
            let kind = entry.file_type().expect("d_type");
            assert_eq!(kind.is_dir(), node.body == Body::Dir, "d_type of {child}");
            assert_eq!(kind.is_symlink(), matches!(node.body, Body::Symlink(_)), "d_type of {child}");
        }
    }

    /// The paths, without the root.
    pub fn paths(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).filter(|path| *path != ".").collect()
    }

    /// The differences as lines, empty when the trees are equal under `view`.
    pub fn differences(&self, other: &Tree, view: View) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, left) in &self.0 {
            match other.0.get(path) {
                None => lines.push(format!("{path}: only left: {}", describe(left))),
                Some(right) => {
                    lines.extend(compare(left, right, view).into_iter().map(|line| format!("{path}: {line}")))
                }
            }
        }
        let extra = other.0.iter().filter(|(path, _)| !self.0.contains_key(*path));
        lines.extend(extra.map(|(path, right)| format!("{path}: only right: {}", describe(right))));
        if view.identity {
            let (left, right) = (self.groups(), other.groups());
            lines.extend(
                left.iter()
                    .filter(|group| !right.contains(group))
                    .map(|group| format!("only left one file: {group:?}")),
            );
            lines.extend(
                right
                    .iter()
                    .filter(|group| !left.contains(group))
                    .map(|group| format!("only right one file: {group:?}")),
            );
        }
        lines
    }

    /// Panics with the differences, if there are any.
    #[track_caller]
    pub fn assert_same(&self, other: &Tree, view: View) {
        let lines = self.differences(other, view);
        assert!(lines.is_empty(), "trees differ (left is self, right is other):\n  {}", lines.join("\n  "));
    }

    fn groups(&self) -> Vec<Vec<&str>> {
        let mut groups: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
        for (path, node) in &self.0 {
            groups.entry(node.identity).or_default().push(path);
        }
        let mut many: Vec<_> = groups.into_values().filter(|names| names.len() > 1).collect();
        many.sort();
        many
    }
}

/// The most that a list of names or a value takes (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_BYTES_MAX: usize = 65_536;

fn read_node(path: &Path) -> std::io::Result<Node> {
    let stat = path.symlink_metadata()?;
    let kind = stat.file_type();
    let body = if kind.is_dir() {
        Body::Dir
    } else if kind.is_symlink() {
        Body::Symlink(std::fs::read_link(path)?.as_os_str().as_bytes().to_vec())
    } else if kind.is_fifo() {
        Body::Fifo
    } else if kind.is_socket() {
        Body::Socket
    } else if kind.is_char_device() {
        Body::CharDevice(stat.rdev())
    } else if kind.is_block_device() {
        Body::BlockDevice(stat.rdev())
    } else {
        let content = std::fs::read(path)?;
        assert_eq!(content.len() as u64, stat.size(), "st_size and content of {}", path.display());
        Body::File(content)
    };
    Ok(Node {
        body,
        mode: stat.mode() & 0o7777,
        uid: stat.uid(),
        gid: stat.gid(),
        nlink: Some(stat.nlink()),
        mtime: Some(stat.mtime()),
        xattrs: read_xattrs(path)?,
        identity: stat.ino(),
    })
}

fn read_xattrs(path: &Path) -> std::io::Result<BTreeMap<String, Vec<u8>>> {
    // Names and values are small as a rule; to clear the largest buffer for each file of a large tree would be most of the work.
    let mut small = [0_u8; 1024];
    let mut large = Vec::new();
    let names = match rustix::fs::llistxattr(path, &mut small[..]) {
        Ok(length) => &small[..length],
        Err(rustix::io::Errno::RANGE) => {
            large.resize(XATTR_BYTES_MAX, 0);
            let length = rustix::fs::llistxattr(path, large.as_mut_slice())?;
            &large[..length]
        }
        // Special files and links have none on some filesystems, and say so in this way.
        Err(rustix::io::Errno::OPNOTSUPP) => &[],
        Err(error) => return Err(error.into()),
    };
    let mut found = BTreeMap::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = String::from_utf8_lossy(name).into_owned();
        let mut value = vec![0_u8; XATTR_BYTES_MAX];
        let length = rustix::fs::lgetxattr(path, name.as_str(), value.as_mut_slice())?;
        value.truncate(length);
        found.insert(name, value);
    }
    Ok(found)
}

fn compare(left: &Node, right: &Node, view: View) -> Vec<String> {
    if std::mem::discriminant(&left.body) != std::mem::discriminant(&right.body) {
        return vec![format!("{} / {}", describe(left), describe(right))];
    }
    let mut lines = Vec::new();
    if left.body != right.body {
        lines.push(format!("content {} / {}", brief(&left.body), brief(&right.body)));
    }
    if left.mode != right.mode {
        lines.push(format!("mode {:o} / {:o}", left.mode, right.mode));
    }
    if (left.uid, left.gid) != (right.uid, right.gid) {
        lines.push(format!("owner {}:{} / {}:{}", left.uid, left.gid, right.uid, right.gid));
    }
    let counted = view.nlinks && left.body != Body::Dir;
    if let (true, Some(ours), Some(theirs)) = (counted, left.nlink, right.nlink)
        && ours != theirs
    {
        lines.push(format!("nlink {ours} / {theirs}"));
    }
    if let (true, Some(ours), Some(theirs)) = (view.mtimes, left.mtime, right.mtime)
        && ours != theirs
    {
        lines.push(format!("mtime {ours} / {theirs}"));
    }
    if view.xattrs && left.xattrs != right.xattrs {
        lines.push(format!("xattrs {:?} / {:?}", left.xattrs, right.xattrs));
    }
    lines
}

fn describe(node: &Node) -> String {
    format!("{} mode {:o} owner {}:{}", brief(&node.body), node.mode, node.uid, node.gid)
}

/// The content in runs, short enough to read and exact enough to tell two apart.
fn brief(body: &Body) -> String {
    let Body::File(content) = body else { return format!("{body:?}") };
    let mut text = format!("file[{}]", content.len());
    for run in content.chunk_by(|left, right| left == right).take(12) {
        // Writing to a String cannot fail.
        write!(text, " {}x{}", run[0].escape_ascii(), run.len()).expect("write to a String");
    }
    text
}
