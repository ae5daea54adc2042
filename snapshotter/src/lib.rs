//! Images and snapshots: one store for containerd and for Lamina's own front end.
//!
//! Reading order: `digest` and `error` are the words, `snapshot` the rules (pure), `store` keeps what they speak of on disk, `mount`
//! shows it, `snapshotter` is what containerd asks for, and `service` how it asks; `host` and `terminal` are for command lines. Nothing imports leftwards of that.
//! Must not know containers. Invariant: whatever has a record in the store is whole; what has none does not exist.

pub mod digest;
pub mod error;
pub mod host;
pub mod image;
pub mod mount;
pub mod service;
pub mod snapshot;
pub mod snapshotter;
pub mod store;
#[expect(unsafe_code, reason = "a descriptor by its number")]
pub mod sys;
pub mod terminal;
