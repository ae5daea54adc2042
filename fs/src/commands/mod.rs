//! The commands of `lamina-fs` besides mounting, one a file.
//!
//! Owns their arguments. Invariant: a command answers with a text or with one sentence; `main` prints either.

pub mod index;
pub mod question;
pub mod stats;
pub mod usage;
