//! How we ask the kernel: thin wrappers, one system call each, no policy.
//!
//! Owns every system call of layers and union and the only `unsafe` of the crate. Must not know layers. Invariant: names
//! are single components below a directory descriptor; the one exception is `/proc/self/fd`, through which a descriptor
//! opened with `O_PATH` is used where the kernel has no call that takes it.

pub mod calls;
pub mod copy;
pub mod credentials;
pub mod descriptor;
pub mod dir;
pub mod fault;
pub mod handle;
pub mod ioctl;
pub mod map;
pub mod memory;
pub mod node;
pub mod open;
pub mod rename;
pub mod stat;
pub mod xattr;

use crate::error::Error;
use rustix::io::Errno;

/// Names the call in an errno of rustix.
pub fn os(call: &'static str) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::Os { call, errno: errno.raw_os_error() }
}
