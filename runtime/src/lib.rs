//! Containers: as the OCI runtime specification has them, and as the front end keeps them.
//!
//! `container` is what is written down of each, `oci` the lifecycle, `sys` how both ask the kernel. Nothing here starts a thread: every verb may fork, and a fork of
//! one thread may run any code on the other side.

pub mod bundle;
pub mod container;
pub mod error;
pub mod oci;
#[expect(unsafe_code, reason = "the only kernel calls that no crate wraps")]
pub(crate) mod sys;
