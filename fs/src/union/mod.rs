//! How layers combine. Knows nothing of FUSE.
//!
//! `Union` owns the stack of layers, the table of inodes and the descriptors. In reading order: `merge` decides what is
//! visible, `lookup` turns a name into an inode, `backing` an inode into a descriptor, `copy_up` moves a file to the upper
//! layer; then a file per verb.
//!
//! Lock order: `copying` of an inode, then of the directories above it, upward; then `children` of directories, the one above
//! first, else the smaller number first; then `state` of one inode, held for no call. Only `copying` is held over a data copy,
//! and only that of the inode being copied. Shards of the tables are innermost and held for no call.

mod acl;
mod attr;
mod backing;
mod changes;
mod copy_up;
mod create;
mod descriptors;
mod export;
mod file;
mod ids;
mod indexed;
mod inode;
mod lend;
mod links;
mod lookup;
mod merge;
mod names;
mod numbers;
mod origin;
mod position;
mod readdir;
mod remove;
mod rename;
mod stack;
mod table;
mod usage;
mod xattr;

#[cfg(test)]
mod fault_tests;

pub use crate::layer::{OverrideStat, SetupError, UpperConfig};
pub use crate::sys::stat::{TimeChange, Timestamp};
pub use changes::{Change, ChangeKind, changes};
pub use export::{build_index, verify_index};
pub use ids::{IdMap, IdMapError, IdPolicy, Squash};
pub use inode::{InodeNumber, Kind};
pub use lend::{Intent, Loan};
pub use readdir::{ListedEntry, Listing};
pub use rename::RenameFlags;
pub use usage::Usage;
pub use xattr::XattrPolicy;

use crate::error::{Error, Result};
use crate::index::Index;
use crate::layer::{DirMarks, Layer, LayerId, Upper};
use crate::sys::credentials::{Privilege, privilege};
use crate::sys::stat;
use backing::Handle;
use copy_up::Sharing;
use descriptors::{Descriptors, FILE_USES, Use};
use inode::{Below, Inode, State, UpperFile};
use links::LinkIndex;
use merge::DirPart;
use names::Tables;
use numbers::Numbering;
use origin::Origins;
use parking_lot::Mutex;
use position::Order;
use readdir::Listings;
use stack::Stack;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use table::InodeTable;
use usage::Sums;

/// Lower layers of one mount at the most (`OVL_MAX_STACK` of the kernel's overlayfs, and what Podman passes).
pub const MAX_LOWERS: usize = 500;

/// Of the descriptors that a mount may have, one in this many is kept for the next use: the others are for files that are open
/// without a name, and for running operations.
const KEPT_PART: usize = 2;

/// Descriptors of a mount whose process has not asked for its limit, see getrlimit(2): a quarter of what is usual.
const DESCRIPTORS_MAX: usize = 256;

/// What a mount is made of; everything is parsed.
#[derive(Debug, Clone)]
pub struct Config {
    /// Roots of the lower layers, topmost first.
    pub lowers: Vec<PathBuf>,
    /// `None`: the mount is read-only.
    pub upper: Option<UpperConfig>,
    /// How owners are shown and stored.
    pub ids: IdPolicy,
    /// Which attributes are served.
    pub xattrs: XattrPolicy,
    /// Directories show one link.
    pub static_nlink: bool,
    /// Whether fsync(2) reaches the disk.
    pub sync: bool,
    /// The upper layer need not survive a crash; it says so in the work directory.
    pub volatile: bool,
    /// Whiteouts are `.wh.` files even where devices could be made.
    pub force_dot_whiteouts: bool,
    /// The index of the lower layers, see `build_index`.
    pub index: Option<PathBuf>,
    /// Whether POSIX ACLs are served.
    pub acl: bool,
    /// Descriptors of layers' files that are kept open at the most.
    pub descriptors_max: usize,
}

impl Config {
    /// A read-only mount of these layers, topmost first, with every other choice as a mount without options has it.
    pub fn new(lowers: Vec<PathBuf>) -> Config {
        Config {
            lowers,
            upper: None,
            ids: IdPolicy::default(),
            xattrs: XattrPolicy { enabled: true, override_stat: OverrideStat::Off },
            static_nlink: false,
            sync: true,
            volatile: false,
            force_dot_whiteouts: false,
            index: None,
            acl: true,
            descriptors_max: DESCRIPTORS_MAX,
        }
    }
}

/// Who asks; ids as the mount's users see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the field names are those of credentials(7)")]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
    pub umask: u32,
}

/// What a user sees of a file. Sizes in bytes, `blocks` of 512 bytes; see stat(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the field names are those of stat(2)")]
pub struct Attributes {
    /// The number by which the kernel asks for it.
    pub number: InodeNumber,
    /// The number that users see: the same, but for the root.
    pub st_ino: u64,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    pub blocks: u64,
    pub blksize: u32,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    /// The times and the blocks may change without the union being told, see `lend`.
    pub unwatched: bool,
}

/// Changes to a file's attributes; `None` keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the field names are those of stat(2)")]
pub struct Changes {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: TimeChange,
    pub mtime: TimeChange,
    /// Drop set-user-id, set-group-id and file capabilities.
    pub kill_privileges: bool,
}

/// Free space and counts; see statvfs(3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the field names are those of statvfs(3)")]
pub struct FilesystemStat {
    pub blocks: u64,
    pub bfree: u64,
    pub bavail: u64,
    pub files: u64,
    pub ffree: u64,
    pub bsize: u32,
    pub frsize: u32,
    pub name_max: u32,
}

/// The union of one stack of layers.
pub struct Union {
    stack: Stack,
    table: InodeTable,
    descriptors: Descriptors,
    numbering: Numbering,
    links: LinkIndex,
    /// `None`: read-only, and no upper file exists.
    origins: Option<Origins>,
    tables: Tables,
    sharing: Sharing,
    index: Option<Index>,
    order: Order,
    listings: Mutex<Listings>,
    sums: Sums,
    privilege: Privilege,
    root_ino: u64,
    ids: IdPolicy,
    xattrs: XattrPolicy,
    static_nlink: bool,
    sync: bool,
    acl: bool,
    labels: bool,
}

impl Union {
    /// Opens the layers, locks and empties the work directory.
    ///
    /// Sets this process's umask to 0: a new file's mode is decided here, not by the process that serves it.
    ///
    /// # Errors
    /// A sentence that names the path, the cause and the way out; nothing has changed then.
    pub fn new(config: Config) -> Result<Union, SetupError> {
        nix::sys::stat::umask(nix::sys::stat::Mode::empty());
        let stack = Stack::open(&config)?;
        let fail = |error| SetupError::Work {
            path: config.upper.as_ref().map(|upper| upper.work.clone()).unwrap_or_default(),
            error,
        };
        let (links, origins) = match &stack.upper {
            Some(upper) => (LinkIndex::load(upper.work()).map_err(fail)?, Some(Origins::load(upper).map_err(fail)?)),
            None => (LinkIndex::default(), None),
        };
        let known = stack.upper.as_ref().map(usage::at_mount).transpose().map_err(fail)?.flatten();
        let numbering = Numbering::new(stack.layers().map(|layer| layer.dev()));
        let index = match &config.index {
            Some(file) => {
                let lowers: Vec<&Layer> = stack.layers().filter(|layer| layer.id() != LayerId::UPPER).collect();
                let opened = Index::open(file, &lowers);
                Some(opened.map_err(|error| SetupError::Index { error: Box::new(error) })?)
            }
            None => None,
        };
        let root = root_inode(&stack).map_err(fail)?.indexed_at(index.as_ref().map(Index::root));
        let basis = stack.layers().find(|layer| layer.id() != LayerId::UPPER).map(|layer| layer.root_identity());
        let (dev, ino) = basis.unwrap_or_default();
        Ok(Union {
            table: InodeTable::new(Arc::new(root)),
            descriptors: Descriptors::new(config.descriptors_max / KEPT_PART),
            root_ino: numbering.number(dev, ino, 0),
            numbering,
            links,
            origins,
            tables: Tables::default(),
            sharing: Sharing::new(stack.layers().map(|layer| layer.dev())),
            index,
            order: Order::default(),
            listings: Mutex::default(),
            sums: Sums::new(known),
            privilege: privilege().map_err(fail)?,
            ids: config.ids,
            xattrs: config.xattrs,
            static_nlink: config.static_nlink,
            sync: config.sync && !config.volatile,
            acl: config.acl && config.xattrs.enabled,
            labels: crate::sys::credentials::labels_files(),
            stack,
        })
    }

    /// Whether there is no upper layer.
    pub fn read_only(&self) -> bool {
        self.stack.upper.is_none()
    }

    /// At the end of a mount: brings the upper layer to the disk, unless it need not survive a crash.
    pub fn finish(&self) {
        let Some(upper) = &self.stack.upper else { return };
        let kept = self.keep_usage(upper);
        upper.work().unlock();
        let synced = self.synced(upper);
        let kept = kept.and_then(|kept| match kept.filter(|_| synced) {
            Some(kept) => self.keep_usage_for_good(upper, &kept),
            None => Ok(()),
        });
        copy_up::logged("write down what the upper layer takes", kept);
    }

    /// At the end of a mount that somebody still uses: as `finish`, but what the upper layer takes may still change.
    pub fn finish_in_use(&self) {
        let Some(upper) = &self.stack.upper else { return };
        upper.work().unlock();
        self.synced(upper);
    }

    /// Whether the upper layer was brought to the disk.
    fn synced(&self, upper: &Upper) -> bool {
        if !self.sync {
            return false;
        }
        let synced = stat::sync_filesystem(upper.layer().root());
        if let Err(error) = &synced {
            tracing::error!(%error, "the upper layer may be incomplete after a power cut");
        }
        synced.is_ok()
    }

    /// The kernel forgets lookups of an inode.
    pub fn forget(&self, inode: InodeNumber, lookups: u64) {
        for gone in self.table.forget(inode, lookups, &|last| self.look_last(last)) {
            self.descriptors.forget(gone.number, FILE_USES);
            if !gone.layers.is_empty() {
                self.listings.lock().forget(gone.number);
            }
            self.descriptors.forget(gone.number, gone.layers.into_iter().map(Use::Dir));
        }
    }

    /// How many inodes are alive.
    pub fn inode_count(&self) -> usize {
        self.table.len()
    }

    fn inode(&self, number: InodeNumber) -> Result<Arc<Inode>> {
        self.table.get(number).ok_or(Error::NoSuchInode)
    }

    fn dir(&self, number: InodeNumber) -> Result<Arc<Inode>> {
        let inode = self.inode(number)?;
        match inode.is_dir() {
            true => Ok(inode),
            false => Err(Error::NotDirectory),
        }
    }
}

fn root_inode(stack: &Stack) -> Result<Inode> {
    let mut parts: Vec<DirPart> = Vec::new();
    for layer in stack.layers() {
        let marks = layer.dir_marks(layer.root())?;
        parts.push(DirPart { layer: layer.id(), stat: layer.stat_fd(layer.root().as_fd())?, marks });
        if marks.opaque {
            break;
        }
    }
    let upper = parts.first().filter(|part| part.layer == LayerId::UPPER).copied();
    let state = State {
        upper: upper.map(|part| UpperFile { dev: part.stat.dev, ino: part.stat.ino }),
        upper_marks: upper.map(|part| part.marks).unwrap_or(DirMarks::default()),
        ..State::default()
    };
    let lower = parts.into_iter().filter(|part| part.layer != LayerId::UPPER).collect();
    let root = Inode::new(InodeNumber::ROOT, Kind::Directory, Below::Dir(lower), None, state);
    Ok(root.counted_as(upper.as_ref().map(|part| &part.stat)))
}
