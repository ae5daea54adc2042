//! A layer that can only be read, by type.
//!
//! Owns the root descriptor and what one layer says of one name. Must not know other layers. Invariant: nothing here
//! changes a layer.

use super::override_stat::{OVERRIDE_XATTRS, Overridden};
use super::whiteout::{OPAQUE_FILE, OPAQUE_XATTRS, OpaqueValue, WHITEOUT_XATTRS, dot_name};
use crate::error::Result;
use crate::sys::stat::Stat;
use crate::sys::{open, stat, xattr};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The place of a layer in its stack: 0 is the upper layer, 1 the topmost lower one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct LayerId(pub u16);

impl LayerId {
    /// The upper layer, whether the stack has one or not.
    pub const UPPER: LayerId = LayerId(0);
}

/// What ONE layer says of a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// Nothing.
    Absent,
    /// What the layers below say does not count.
    Whiteout,
    /// Anything but a directory.
    Leaf(Stat),
    /// A directory.
    Dir {
        /// Its attributes.
        stat: Stat,
        /// Its marks.
        marks: DirMarks,
    },
}

/// The marks of one layer's directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DirMarks {
    /// Nothing of the directories below shows.
    pub opaque: bool,
    /// Empty regular files in it may be whiteouts by attribute.
    pub xattr_whiteouts: bool,
}

/// One layer.
#[derive(Debug)]
pub struct Layer {
    root: OwnedFd,
    id: LayerId,
    root_stat: Stat,
    uuid: [u8; 16],
    /// Files may show other owners, modes and types than they have.
    overridden: bool,
}

impl Layer {
    /// Takes a layer's root directory into use. `overridden`: look for override attributes even where the root has none.
    pub fn new(id: LayerId, root: OwnedFd, overridden: bool) -> Result<Self> {
        let root_stat = stat::stat_fd(root.as_fd())?;
        let uuid = crate::sys::handle::filesystem_uuid(root.as_fd());
        let overridden = overridden || override_value(root.as_fd())?.is_some();
        Ok(Layer { root, id, root_stat, uuid, overridden })
    }

    /// Its place in the stack.
    pub fn id(&self) -> LayerId {
        self.id
    }

    /// Its root directory.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Device number of its root.
    pub fn dev(&self) -> u64 {
        self.root_stat.dev
    }

    /// Device and inode number of its root.
    pub fn root_identity(&self) -> (u64, u64) {
        (self.root_stat.dev, self.root_stat.ino)
    }

    /// UUID of its filesystem, zeros where unknown.
    pub fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    /// Whether files may show other owners, modes and types than they have.
    pub fn is_overridden(&self) -> bool {
        self.overridden
    }

    /// What this layer says of `name` in `dir`, one of its own directories with the given marks.
    pub fn entry(&self, dir: BorrowedFd<'_>, marks: DirMarks, name: &OsStr) -> Result<Entry> {
        let Some(found) = stat::stat_at(dir, name)? else {
            return Ok(match open::exists(dir, &dot_name(name))? {
                true => Entry::Whiteout,
                false => Entry::Absent,
            });
        };
        if found.is_whiteout_device() {
            return Ok(Entry::Whiteout);
        }
        if found.is_dir() {
            let fd = open::open_dir(dir, name)?;
            let mut marks = self.dir_marks(fd.as_fd())?;
            // A directory beside its own `.wh.` file was removed and made anew in this layer.
            marks.opaque = marks.opaque || open::exists(dir, &dot_name(name))?;
            let stat = self.shown(found, fd.as_fd())?;
            return Ok(Entry::Dir { stat, marks });
        }
        if !self.overridden && !marks.xattr_whiteouts {
            return Ok(Entry::Leaf(found));
        }
        let fd = open::open_path(dir, name)?;
        if marks.xattr_whiteouts && is_xattr_whiteout(&found, fd.as_fd())? {
            return Ok(Entry::Whiteout);
        }
        Ok(Entry::Leaf(self.shown(found, fd.as_fd())?))
    }

    /// The marks of one of this layer's directories. Without privilege a mode can deny them; the directory must show all the same, or its
    /// parent could not be listed.
    pub fn dir_marks(&self, dir: BorrowedFd<'_>) -> Result<DirMarks> {
        let opaque = match open::exists(dir, OsStr::new(OPAQUE_FILE)) {
            // Then no name in it can be looked up, neither by us nor by who asks.
            Err(error) if error.is(libc::EACCES) => false,
            other => other?,
        };
        let mut marks = DirMarks { opaque, xattr_whiteouts: false };
        // One listing instead of three reads: almost no directory has any attribute.
        let names = xattr::names(dir)?;
        for name in OPAQUE_XATTRS {
            if !names.split(|byte| *byte == 0).any(|listed| listed == name.as_bytes()) {
                continue;
            }
            let value = match xattr::value(dir, OsStr::new(name)) {
                // Names are listed whatever the mode is, and `y` is what is written to directories that change.
                Err(error) if error.is(libc::EACCES) => Some(b"y".to_vec()),
                other => other?,
            };
            match OpaqueValue::parse(&value.unwrap_or_default()) {
                OpaqueValue::Opaque => marks.opaque = true,
                OpaqueValue::HoldsXattrWhiteouts => marks.xattr_whiteouts = true,
                OpaqueValue::Nothing => {}
            }
        }
        Ok(marks)
    }

    /// Whether a listed name of type `found` is a whiteout by attribute.
    pub fn is_xattr_whiteout_at(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<bool> {
        match stat::stat_at(dir, name)? {
            Some(found) => is_xattr_whiteout(&found, open::open_path(dir, name)?.as_fd()),
            None => Ok(false),
        }
    }

    /// Attributes of the file behind a descriptor of this layer, as they are to be shown.
    pub fn stat_fd(&self, fd: BorrowedFd<'_>) -> Result<Stat> {
        self.shown(stat::stat_fd(fd)?, fd)
    }

    /// Attributes of a name as they are to be shown; `None` where it does not exist.
    pub fn stat_at(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Stat>> {
        match stat::stat_at(dir, name)? {
            Some(found) if self.overridden => {
                let fd = open::open_path(dir, name)?;
                self.shown(found, fd.as_fd()).map(Some)
            }
            found => Ok(found),
        }
    }

    fn shown(&self, mut stat: Stat, fd: BorrowedFd<'_>) -> Result<Stat> {
        if self.overridden
            && let Some(value) = override_value(fd)?
        {
            value.apply(&mut stat);
        }
        Ok(stat)
    }
}

fn override_value(fd: BorrowedFd<'_>) -> Result<Option<Overridden>> {
    for name in OVERRIDE_XATTRS {
        if let Some(value) = xattr::value(fd, OsStr::new(name))? {
            return Ok(Overridden::parse(&value));
        }
    }
    Ok(None)
}

fn is_xattr_whiteout(found: &Stat, fd: BorrowedFd<'_>) -> Result<bool> {
    if found.format() != libc::S_IFREG || found.size != 0 {
        return Ok(false);
    }
    for name in WHITEOUT_XATTRS {
        if xattr::value(fd, OsStr::new(name))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
