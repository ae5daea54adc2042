//! How we ask the kernel where neither nix nor rustix has a safe call: thin wrappers, one system call each, no policy.
//!
//! Must not know containers. Invariant: the only `unsafe` of the crate.

pub mod bpf;
pub mod clone;
pub mod descriptors;
pub mod exec;
pub mod keyring;
pub mod mount;
pub mod schedule;
pub mod seccomp;

use std::io;

/// The answer of a raw system call as a result.
fn check(answer: libc::c_long) -> io::Result<libc::c_long> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
