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
        if intent.direct {
            self.with_room(|| open::reopen_direct(reference.as_fd()))?;
        }
        Ok(Some(Loan { file, reference, intent }))
    }

    /// An empty file, without a name, to find out with whether files can be lent: in the upper layer, or in memory where
    /// there is none.
    pub fn sample(&self) -> Result<OwnedFd> {
        match &self.stack.upper {
            Some(upper) => upper.build(Node::File).map(|(_, fd)| fd),
            None => open::memory_file(),
        }
    }

    /// Whether a layer lies on a filesystem that lies on another one.
    pub fn is_stacked(&self) -> Result<bool> {
        self.stack.layers().try_fold(false, |stacked, layer| Ok(stacked || stat::is_stacked(layer.root())?))
    }
}
