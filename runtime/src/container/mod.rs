//! Containers as the front end `lamina` keeps them: what is written down of each, beside the store of images.
//!
//! `record` is one container on disk, `list` all of them, `name` and `id` what they are called, `error` what can go wrong. `make`, `start`
//! and `remove` are its life, `filesystem` and `ids` what it lives on, `monitor` who stays with it, `log` and `status` what is known of it.
//! `parts`, `tree` and `copy` are its files, read without a mount, `insert` what comes into them, `look` shows them at a directory; `space` is what all take, `prune` deletes what is nobody's.
//! What happens inside is the business of `oci`. Must not know command lines. Invariant: a container exists when its `container.json` does.

pub mod clock;
pub mod copy;
mod enter;
pub mod error;
pub mod exec;
pub mod extract;
pub mod filesystem;
pub mod follow;
pub mod freeze;
pub mod id;
pub mod ids;
pub mod insert;
pub mod inspect;
pub mod list;
pub mod log;
pub mod look;
pub mod make;
pub mod monitor;
pub mod name;
mod pack;
pub mod parts;
pub mod prune;
pub mod record;
pub mod remove;
pub mod space;
pub mod start;
pub mod status;
pub mod stop;
#[cfg(test)]
mod tests;
pub mod tree;

pub use error::{Error, Result};
pub use id::Id;
pub use list::{Claim, Containers};
pub use name::Name;
pub use record::{Container, Exit, Record};
