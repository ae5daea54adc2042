//! The oracle: random operation sequences over random layer stacks, run against a model and against real unions. It owns what is generated
//! and how it is judged; a [`Target`] owns how an operation is carried out. Invariant: with one seed, one sequence.

/// Operations, and the strategies that generate them.
pub mod op;

/// Random lower stacks, and how they are built on disk in every format.
pub mod stack;

/// The model: what a union shows and answers, in memory.
pub mod model;

/// What the model expects of each operation.
mod expect;

/// Operations on a mounted path, by system calls.
pub mod path_target;

/// One sequence on one target beside the model.
pub mod run;

/// Stacks and sequences of a fuzzer.
mod bytes;

pub use bytes::from_bytes;
pub use model::{Model, Refusal};
pub use op::{Op, Place, SLOTS};
pub use path_target::PathTarget;
pub use run::{Cases, follow};
pub use stack::{Formats, Stack};

use crate::tree::Tree;

/// The kernel's error number.
pub type Errno = i32;

/// What an operation answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Success, and nothing more to say.
    Done,
    /// Bytes read.
    Data(Vec<u8>),
    /// What fstat says of an open file; the link count where it is determined.
    Stat {
        /// Size in bytes.
        size: u64,
        /// Permission bits.
        mode: u32,
        /// Number of names.
        nlink: Option<u64>,
    },
}

/// Something that carries operations out. Handles stay open between operations; `remount` closes them first.
pub trait Target {
    /// Carries out one operation. Never called with `Op::Remount` or `Op::DropCaches`.
    fn apply(&mut self, op: &Op) -> Result<Reply, Errno>;
    /// The whole tree as it shows now.
    fn tree(&mut self) -> Tree;
    /// Unmounts and mounts again.
    fn remount(&mut self);
    /// Forgets whatever can be read again.
    fn drop_caches(&mut self);
}
