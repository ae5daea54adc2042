//! How long work tells how far it is.
//!
//! Invariant: whoever listens decides nothing: leaving it out changes no result.

use crate::digest::Digest;

/// What is being done with a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It comes from a registry or an archive.
    Fetch,
    /// It is unpacked.
    Unpack,
    /// It goes to a registry or an archive.
    Send,
}

/// One report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Work on a blob begins; its bytes, where they are known.
    Begin {
        /// Which.
        blob: Digest,
        /// What is done.
        stage: Stage,
        /// How much there is to do.
        bytes: Option<u64>,
    },
    /// So many bytes more.
    Advance {
        /// Which.
        blob: Digest,
        /// What is done.
        stage: Stage,
        /// How many since the last report.
        bytes: u64,
    },
    /// It is done, or was there already.
    End {
        /// Which.
        blob: Digest,
        /// What is done.
        stage: Stage,
    },
}

/// Who is told, from any thread.
pub type Progress<'a> = &'a (dyn Fn(Report) + Sync);

/// Nobody is told.
pub fn quiet(_: Report) {}
