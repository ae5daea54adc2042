//! Containers as the front end `lamina` keeps them: what is written down of each, beside the store of images.
//!
//! `record` is one container on disk, `list` all of them, `name` and `id` what they are called, `prune` deletes what is nobody's,
//! `clock` says how long ago, `error` what can go wrong. `parts`, `tree`, `copy` and `extract` are its files: read without a mount, and copied; `space` is what
//! all take. What runs is the business of `oci`. Must not know command lines. Invariant: a container exists when its `container.json` does.

pub mod clock;
pub mod copy;
pub mod error;
pub mod extract;
pub mod id;
pub mod list;
pub mod name;
pub mod parts;
pub mod prune;
pub mod record;
pub mod space;
#[cfg(test)]
mod tests;
pub mod tree;

pub use error::{Error, Result};
pub use id::Id;
pub use list::{Claim, Containers};
pub use name::Name;
pub use record::{Container, Exit, Record};
