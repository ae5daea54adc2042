//! Images and snapshots: one store for containerd and for Lamina's own front end.
//!
//! Reading order: `digest` and `error` are the words, `snapshot` the rules (pure), `store` keeps what they speak of on disk.
//! Must not know containers. Invariant: whatever has a record in the store is whole; what has none does not exist.

pub mod digest;
pub mod error;
pub mod image;
pub mod snapshot;
pub mod store;
