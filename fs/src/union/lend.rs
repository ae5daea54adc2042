//! Files whose data somebody may reach without the union.
//!
//! Owns which file can be lent, to be read and written behind the union's back, and what has to be remembered of that. Must
//! not know who borrows. Invariants: what is lent is never replaced by another file, so it is one of the upper layer, or any
//! where there is no upper layer; nothing of a lower layer is lent for writing.

use super::inode::{Inode, InodeNumber};
use super::{Handle, Union};
use crate::error::{Error, Result};
use crate::layer::Node;
use crate::sys::{open, stat};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a borrower is going to do; see open(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Read.
    pub read: bool,
    /// Write, at all.
    pub write: bool,
    /// Write at the end only (`O_APPEND`).
    pub append: bool,
    /// Pass the page cache by (`O_DIRECT`).
    pub direct: bool,
}

/// A file that can be lent, and a reference to it.
pub struct Loan<'a> {
    file: Arc<Inode>,
    reference: Handle<'a>,
    intent: Intent,
}

impl AsFd for Loan<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reference.as_fd()
    }
}

impl Loan<'_> {
    /// Whether it was lent before. A mapping may outlive the descriptor that it was made through, so the data may still be
    /// changed through it, whoever else has it open.
    pub fn was_lent(&self) -> bool {
        self.file.lent.load(Ordering::SeqCst)
    }

    /// The file is lent from now on. Whether by this its times may change unseen, which they could not before: only stores
    /// into a shared mapping are seen by nobody, and they need a descriptor that reads and writes.
    pub fn made(&self) -> bool {
        self.file.lent.store(true, Ordering::SeqCst);
        let maps = self.intent.read && self.intent.write;
        maps && !self.file.unwatched.swap(true, Ordering::SeqCst)
    }

    /// Counts an open.
    pub fn opened(&self) {
        self.file.opened();
    }
}

impl Union {
    /// What it takes to lend a file; `None` where it could be replaced: then every access has to go through the union.
    ///
    /// # Errors
    /// What the layer's filesystem would say of such an open.
    pub fn lend(&self, inode: InodeNumber, intent: Intent) -> Result<Option<Loan<'_>>> {
        let file = self.regular(inode)?;
        if intent.write {
            self.stack.upper()?;
        }
        // In this order: a file that is in the upper layer stays there, so the reference is one of that.
        if !self.read_only() && !file.in_upper() {
            return Ok(None);
        }
        let reference = self.path_fd(&file)?;
        let found = stat::restrictions(reference.as_fd())?;
        if !found.regular {
            return Ok(None);
        }
        // Whoever borrows opens the file in a way that asks nobody (see may_open in the kernel's fs/namei.c).
        if intent.write && (found.immutable || found.append_only && !intent.append) {
            return Err(Error::NotPermitted);
        }
        if intent.write {
            self.changes_unseen(&file);
        }
        if intent.direct {
            self.with_room(|| open::reopen_direct(reference.as_fd()))?;
        }
        Ok(Some(Loan { file, reference, intent }))
    }

    /// An empty file, without a name, to find out with whether files can be lent: in the upper layer, or in memory where
    /// there is none.
    pub fn sample(&self) -> Result<OwnedFd> {
        match &self.stack.upper {
            Some(upper) => upper.build(Node::File, None).map(|(_, fd)| fd),
            None => open::memory_file(),
        }
    }

    /// Whether a layer lies on a filesystem that lies on another one.
    pub fn is_stacked(&self) -> Result<bool> {
        self.stack.layers().try_fold(false, |stacked, layer| Ok(stacked || stat::is_stacked(layer.root())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::union::{Caller, Changes, Config, IdPolicy, OverrideStat, UpperConfig, XattrPolicy};
    use std::ffi::OsStr;
    use std::fs;
    use std::path::Path;

    const READ: Intent = Intent { read: true, write: false, append: false, direct: false };
    const WRITE: Intent = Intent { read: false, write: true, ..READ };
    const BOTH: Intent = Intent { write: true, ..READ };

    fn open(base: &Path, writable: bool) -> Union {
        for dir in ["lower", "upper", "work"] {
            fs::create_dir_all(base.join(dir)).unwrap();
        }
        fs::write(base.join("lower/f"), "lower").unwrap();
        Union::new(Config {
            lowers: vec![base.join("lower")],
            upper: writable.then(|| UpperConfig { upper: base.join("upper"), work: base.join("work") }),
            ids: IdPolicy::default(),
            xattrs: XattrPolicy { enabled: true, override_stat: OverrideStat::Off },
            static_nlink: false,
            sync: true,
            volatile: false,
            force_dot_whiteouts: false,
            index: None,
            acl: true,
            descriptors_max: 256,
        })
        .unwrap()
    }

    fn look_up(union: &Union) -> crate::union::Attributes {
        union.lookup(InodeNumber::ROOT, OsStr::new("f")).unwrap().unwrap()
    }

    fn identity(fd: BorrowedFd<'_>) -> (u64, u64) {
        let found = stat::stat_fd(fd).unwrap();
        (found.dev, found.ino)
    }

    fn identity_of(path: &Path) -> (u64, u64) {
        identity(fs::File::open(path).unwrap().as_fd())
    }

    #[test]
    fn a_file_is_lent_when_no_copy_up_can_replace_it() {
        let base = tempfile::tempdir().unwrap();
        let union = open(base.path(), true);
        let file = look_up(&union).number;
        for intent in [READ, WRITE, BOTH] {
            assert!(union.lend(file, intent).unwrap().is_none(), "{intent:?}");
        }
        let caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0 };
        union.set_attributes(&caller, file, &Changes { mode: Some(0o640), ..Changes::default() }).unwrap();
        let loan = union.lend(file, BOTH).unwrap().unwrap();
        assert_eq!(identity(loan.as_fd()), identity_of(&base.path().join("upper/f")));
    }

    #[test]
    fn nothing_is_lent_for_writing_where_there_is_no_upper_layer() {
        let base = tempfile::tempdir().unwrap();
        let union = open(base.path(), false);
        let file = look_up(&union).number;
        let loan = union.lend(file, READ).unwrap().unwrap();
        assert_eq!(identity(loan.as_fd()), identity_of(&base.path().join("lower/f")));
        for intent in [WRITE, BOTH] {
            assert!(matches!(union.lend(file, intent), Err(Error::ReadOnly)), "{intent:?}");
        }
        assert!(matches!(union.lend(InodeNumber::ROOT, READ), Err(Error::IsDirectory)));
    }

    #[test]
    fn a_loan_is_remembered_until_the_inode_is_forgotten() {
        let base = tempfile::tempdir().unwrap();
        let union = open(base.path(), true);
        let file = look_up(&union).number;
        union.write(file, 0, b"UPPER", false).unwrap();
        let loan = union.lend(file, WRITE).unwrap().unwrap();
        assert!(!loan.was_lent());
        assert!(!loan.made(), "who cannot read cannot map");
        assert!(loan.was_lent() && !look_up(&union).unwatched);
        let second = union.lend(file, BOTH).unwrap().unwrap();
        assert!(second.made(), "from now on");
        assert!(!second.made(), "not anew");
        assert!(look_up(&union).unwatched && union.attributes(file).unwrap().unwatched);
        drop((loan, second));
        union.forget(file, 3);
        assert!(!look_up(&union).unwatched);
    }
}
