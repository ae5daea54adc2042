//! Containers as the OCI runtime specification has them.
//!
//! `oci` is the lifecycle, `sys` is how it asks the kernel. Nothing here starts a thread: every verb may fork, and a fork of
//! one thread may run any code on the other side.

pub mod error;
pub mod oci;
#[expect(unsafe_code, reason = "the only kernel calls that no crate wraps")]
pub(crate) mod sys;
