//! The whole tree of a union in process, read as find(1) would: listings, lookups, attributes, content. Invariant: whatever is listed can be
//! looked up, with the number and the type that the listing gave.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use lamina_fs::error::Error;
use lamina_fs::union::{InodeNumber, Kind};
use support::oracle::Reply;
use support::tree::{Body, Node, Tree};

use crate::target::{InProcess, ROOT, errno, read};

impl InProcess<'_> {
    /// Everything from the root down.
    pub fn whole_tree(&self) -> Tree {
        let mut tree = Tree::default();
        let root = self.union().attributes(ROOT).unwrap_or_else(|error| panic!("attributes of the root: {error:?}"));
        self.collect(ROOT, root.st_ino, ".", &mut tree);
        tree
    }

    fn collect(&self, number: InodeNumber, st_ino: u64, path: &str, tree: &mut Tree) {
        let node = self.node(number, path);
        assert_eq!(node.identity, st_ino, "d_ino and st_ino of {path}");
        let is_dir = node.body == Body::Dir;
        assert!(tree.0.insert(path.into(), node).is_none(), "{path} is listed twice");
        if !is_dir {
            return;
        }
        let fine = |what: &str, error: Error| -> ! { panic!("{what} {path}: {error:?}") };
        let listing = self.union().read_dir(number, 0).unwrap_or_else(|error| fine("read_dir", error));
        for entry in &listing.entries {
            let name = entry.name.to_str().expect("test names are UTF-8");
            if name == "." || name == ".." {
                continue;
            }
            let child = if path == "." { name.to_owned() } else { format!("{path}/{name}") };
            let found = self.find(number, name).unwrap_or_else(|error| panic!("lookup {child}: errno {error}"));
            let found = found.unwrap_or_else(|| panic!("{child} is listed but not found"));
            assert!(entry.kind == Kind::from_mode(found.mode), "d_type of {child}");
            self.collect(found.number, entry.st_ino, &child, tree);
        }
    }

    fn node(&self, number: InodeNumber, path: &str) -> Node {
        let union = self.union();
        let stat = union.attributes(number).unwrap_or_else(|error| panic!("attributes of {path}: {error:?}"));
        let body = match stat.mode & libc::S_IFMT {
            libc::S_IFDIR => Body::Dir,
            libc::S_IFLNK => {
                Body::Symlink(union.read_link(number).unwrap_or_else(|error| panic!("read_link {path}: {error:?}")))
            }
            libc::S_IFIFO => Body::Fifo,
            libc::S_IFSOCK => Body::Socket,
            libc::S_IFCHR => Body::CharDevice(stat.rdev),
            libc::S_IFBLK => Body::BlockDevice(stat.rdev),
            _ => match read(union, number, 0, usize::MAX) {
                Ok(Reply::Data(data)) => Body::File(data),
                other => panic!("read {path}: {other:?}"),
            },
        };
        if let Body::File(content) = &body {
            assert_eq!(content.len() as u64, stat.size, "st_size and content of {path}");
        }
        Node {
            body,
            mode: stat.mode & 0o7777,
            uid: stat.uid,
            gid: stat.gid,
            nlink: Some(stat.nlink.into()),
            mtime: Some(stat.mtime.seconds),
            xattrs: self.xattrs(number, path),
            identity: stat.st_ino,
        }
    }

    fn xattrs(&self, number: InodeNumber, path: &str) -> BTreeMap<String, Vec<u8>> {
        let names = match self.union().list_xattrs(number) {
            Ok(names) => names,
            Err(error) if errno(error) == libc::EOPNOTSUPP => Vec::new(),
            Err(error) => panic!("list_xattrs {path}: {error:?}"),
        };
        let names = names
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| String::from_utf8_lossy(name).into_owned());
        names
            .map(|name| {
                let value = self.union().xattr(number, OsStr::new(&name));
                (name, value.unwrap_or_else(|error| panic!("xattr of {path}: {error:?}")))
            })
            .collect()
    }
}
