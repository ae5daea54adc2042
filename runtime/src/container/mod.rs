//! Containers as the front end `lamina` keeps them: what is written down of each, beside the store of images.
//!
//! `record` is one container on disk, `list` all of them, `name` and `id` what they are called, `prune` deletes what is nobody's,
//! `clock` says how long ago, `error` what can go wrong. `make`, `start`, `stop`, `exec` and `remove` are its life, `filesystem` and `ids` what it
//! lives on, `monitor` who stays with it, `log`, `follow`, `status` and `inspect` what is known of it. `parts`, `tree`, `copy` and `extract` are its files:
//! read without a mount, and copied; `space` is what all take. What happens inside is the business of `oci`. Must not know command lines. Invariant: a container exists
//! when its `container.json` does.

pub mod clock;
pub mod copy;
pub mod error;
pub mod exec;
pub mod extract;
pub mod filesystem;
pub mod follow;
pub mod id;
pub mod ids;
pub mod inspect;
pub mod list;
pub mod log;
pub mod make;
pub mod monitor;
pub mod name;
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
