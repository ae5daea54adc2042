//! The union core in process, without FUSE: no privilege needed, no mount made.
//!
//! - `target`: operations on a `lamina_fs::union::Union`, with the checks that the kernel would have made before asking.
//! - `listing`: the whole tree of such a union.
//! - `judge`: one sequence on it, beside the model.
//! - `model`: random sequences on random stacks against the model.
//! - `usage`: what the upper layer takes, against a walk.
//! - `found`: sequences that once failed, kept as plain tests.

mod found;
mod judge;
mod listing;
mod model;
mod target;
mod usage;
