//! One file of the union: what the layers hold of it now.
//!
//! Owns the state that a copy-up, a rename or a removal changes. Must not do I/O. Invariant: number, kind and what lies
//! below never change; once in the upper layer, a file stays the same file there.

use super::merge::DirPart;
use super::names::LowerNames;
use super::usage::Share;
use crate::index::NodeId;
use crate::layer::{DirMarks, LayerId};
use crate::sys::stat::{Stat, Timestamp};
use parking_lot::{Mutex, RwLock};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// The number by which the kernel knows a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct InodeNumber(pub u64);

impl InodeNumber {
    /// The root directory (`FUSE_ROOT_ID`).
    pub const ROOT: InodeNumber = InodeNumber(1);
}

/// The kind of a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the names are those of inode(7)")]
pub enum Kind {
    Regular,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

impl Kind {
    /// From the type bits of a mode.
    pub fn from_mode(mode: u32) -> Kind {
        match mode & libc::S_IFMT {
            libc::S_IFDIR => Kind::Directory,
            libc::S_IFLNK => Kind::Symlink,
            libc::S_IFIFO => Kind::Fifo,
            libc::S_IFSOCK => Kind::Socket,
            libc::S_IFCHR => Kind::CharDevice,
            libc::S_IFBLK => Kind::BlockDevice,
            _ => Kind::Regular,
        }
    }
}

/// A name in a directory of the union.
pub struct Place {
    /// The directory.
    pub parent: Arc<Inode>,
    /// One component.
    pub name: Box<OsStr>,
}

impl Place {
    /// Whether this is the name `name` of `parent`.
    pub fn is(&self, parent: &Inode, name: &OsStr) -> bool {
        self.parent.number == parent.number && &*self.name == name
    }
}

/// What names a backing file while the mount lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Identity {
    /// The layer.
    pub layer: LayerId,
    /// Device number.
    pub dev: u64,
    /// Inode number on the device.
    pub ino: u64,
}

/// What the lower layers hold of an inode.
#[derive(Debug)]
pub enum Below {
    /// Nothing: it was made in the upper layer.
    Nothing,
    /// A file of one lower layer.
    Leaf {
        /// Which file.
        identity: Identity,
        /// Names that it has there.
        nlink: u32,
        /// Its size in bytes.
        size: u64,
    },
    /// Directories of one or more lower layers, topmost first.
    Dir(Box<[DirPart]>),
}

/// The file that the upper layer holds of an inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UpperFile {
    /// Device number.
    pub dev: u64,
    /// Inode number on the device.
    pub ino: u64,
}

/// What is known of the extended attributes that a user could see.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum XattrsSeen {
    /// Nothing is known.
    #[default]
    Unknown,
    /// It was made by this mount, or copied up: it has no capabilities, which the kernel asks for at every first write. It may
    /// have inherited an access control list, and a security module may have labelled it.
    NoCapability,
    /// They were listed, and there were none at all.
    Nothing,
}

/// What changes in an inode's life.
#[derive(Default)]
pub struct State {
    /// The file in the upper layer, once there is one.
    pub upper: Option<UpperFile>,
    /// The marks of the directory in the upper layer.
    pub upper_marks: DirMarks,
    /// One of its names; `None` while none is known or none is left.
    pub place: Option<Arc<Place>>,
    /// A reference to the upper file that needs no name.
    pub pin: Option<Arc<OwnedFd>>,
    /// A data descriptor that could not be opened again, because of the file's mode.
    pub held: Option<Arc<OwnedFd>>,
    /// No name is left.
    pub removed: bool,
    /// Added to the link count of the backing file to get that of the union.
    pub nlink_delta: i32,
    /// Its key in the hard link index, where it has one.
    pub link_key: Option<Arc<str>>,
    /// Every identity under which the table finds it.
    pub identities: Vec<Identity>,
    /// Size of the directory in the upper layer when it was first seen, in bytes.
    pub upper_size: u64,
    /// What is known of its extended attributes.
    pub xattrs: XattrsSeen,
    /// How often they were changed: what was listed before a change is not noted after it.
    pub xattr_changes: u64,
    /// When the names of the directory in the upper layer last changed, while nothing has been written to it since.
    pub names_mtime: Option<Timestamp>,
    /// Whether the directory in the upper layer has a default ACL; `None` until asked.
    pub default_acl: Option<bool>,
}

/// One file of the union.
pub struct Inode {
    /// Its number.
    pub number: InodeNumber,
    /// Its kind.
    pub kind: Kind,
    /// What the lower layers hold of it.
    pub below: Below,
    /// Where the lower layers hold it; `None` for the root and for what was made in the upper layer.
    pub home: Option<Arc<Place>>,
    /// Where the index has what the lower layers hold of it.
    pub index_node: Option<NodeId>,
    /// What changes.
    pub state: RwLock<State>,
    /// Held over its copy-up.
    pub copying: Mutex<()>,
    /// For a directory: held while its names are looked up (shared) or changed.
    pub children: RwLock<()>,
    known_names: OnceLock<Box<KnownNames>>,
    /// What of it the usage of the upper layer counts.
    pub share: Share,
    /// It was lent, see `lend`.
    pub lent: AtomicBool,
    /// And so that its times may change unseen.
    pub unwatched: AtomicBool,
    lookups: AtomicU64,
    opens: AtomicU32,
}

/// What is known of the names in a directory. Most inodes are no directory, and do not pay for it.
#[derive(Default)]
pub struct KnownNames {
    /// What its lower layers list, once that is known.
    pub lower: RwLock<Option<Arc<LowerNames>>>,
    /// Every name that its upper layer may say anything of, once that is known.
    pub upper: RwLock<Option<HashSet<OsString>>>,
    /// The last name that was asked for and that its lower layers do not have.
    missing_below: Mutex<Option<Box<OsStr>>>,
    askings: AtomicU64,
}

impl State {
    /// Its file in the upper layer is new, whatever was known of the one that it is a copy of.
    pub fn copied(&mut self, file: UpperFile) {
        self.upper = Some(file);
        if self.xattrs == XattrsSeen::Nothing {
            self.xattrs = XattrsSeen::NoCapability;
        }
    }
}

impl Inode {
    /// A new inode that nobody has looked up.
    pub fn new(number: InodeNumber, kind: Kind, below: Below, home: Option<Arc<Place>>, state: State) -> Self {
        Inode {
            number,
            kind,
            below,
            home,
            index_node: None,
            state: RwLock::new(state),
            copying: Mutex::new(()),
            children: RwLock::new(()),
            known_names: OnceLock::new(),
            share: Share::new(None),
            lent: AtomicBool::new(false),
            unwatched: AtomicBool::new(false),
            lookups: AtomicU64::new(0),
            opens: AtomicU32::new(0),
        }
    }

    /// The same inode, with its place in the index.
    pub fn indexed_at(self, node: Option<NodeId>) -> Self {
        Inode { index_node: node, ..self }
    }

    /// The same inode, which the upper layer has under a name, as this.
    pub fn counted_as(self, found: Option<&Stat>) -> Self {
        Inode { share: Share::new(found), ..self }
    }

    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Directory
    }

    /// The lower layers' parts of a directory.
    pub fn lower_parts(&self) -> &[DirPart] {
        match &self.below {
            Below::Dir(parts) => parts,
            _ => &[],
        }
    }

    /// Whether the upper layer holds it.
    pub fn in_upper(&self) -> bool {
        self.state.read().upper.is_some()
    }

    /// Whether no name of it is left.
    pub fn is_removed(&self) -> bool {
        self.state.read().removed
    }

    /// Counts lookups by the kernel.
    pub fn add_lookups(&self, count: u64) {
        self.lookups.fetch_add(count, Ordering::Relaxed);
    }

    /// Takes back lookups; returns how many are left.
    pub fn take_lookups(&self, count: u64) -> u64 {
        let before = self
            .lookups
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| Some(now.saturating_sub(count)))
            .unwrap_or_default();
        before.saturating_sub(count)
    }

    /// Lookups that the kernel still holds.
    pub fn lookups(&self) -> u64 {
        self.lookups.load(Ordering::Relaxed)
    }

    /// What is known of its names; for a directory.
    pub fn known_names(&self) -> &KnownNames {
        self.known_names.get_or_init(Box::default)
    }

    /// Counts a lookup in a directory that every layer was asked for.
    pub fn ask(&self) {
        self.known_names().askings.fetch_add(1, Ordering::Relaxed);
    }

    /// How many lookups every layer was asked for.
    pub fn asked(&self) -> u64 {
        self.known_names().askings.load(Ordering::Relaxed)
    }

    /// Whether this is the name that the lower layers were last found not to have. They never change, so it stays true.
    pub fn is_missing_below(&self, name: &OsStr) -> bool {
        self.known_names().missing_below.lock().as_deref() == Some(name)
    }

    /// The lower layers do not have this name.
    pub fn note_missing_below(&self, name: &OsStr) {
        *self.known_names().missing_below.lock() = Some(name.into());
    }

    /// Counts an open; returns how many there are now.
    pub fn opened(&self) -> u32 {
        self.opens.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Takes back an open; returns how many are left.
    pub fn closed(&self) -> u32 {
        let before = self
            .opens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| Some(now.saturating_sub(1)))
            .unwrap_or_default();
        before.saturating_sub(1)
    }

    /// How often it is open.
    pub fn opens(&self) -> u32 {
        self.opens.load(Ordering::Relaxed)
    }
}
