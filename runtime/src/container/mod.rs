//! Containers as the front end `lamina` keeps them: what is written down of each, beside the store of images.
//!
//! `record` is one container on disk, `list` all of them, `name` and `id` what they are called, `error` what can go wrong. What
//! runs is the business of `oci`. Must not know command lines. Invariant: a container exists when its `container.json` does.

pub mod error;
pub mod id;
pub mod list;
pub mod name;
pub mod record;
#[cfg(test)]
mod tests;

pub use error::{Error, Result};
pub use id::Id;
pub use list::{Claim, Containers};
pub use name::Name;
pub use record::{Container, Exit, Record};
