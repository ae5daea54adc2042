//! How the kernel asks: the union, served over FUSE.
//!
//! Owns everything that names `fuser`. Must not know how layers combine. Invariant: this module decodes, calls and
//! replies; it decides nothing about the tree.

pub mod background;
pub mod detached;
pub mod read_ahead;
pub mod session;
pub mod statistics;
pub mod usage;

pub mod fusermount;
mod mount;
mod signals;

mod counted;
mod counters;
mod directory;
mod driver;
mod ioctl;
mod negotiate;
mod offload;
mod passthrough;
mod reply;
mod turns;

mod convert;
mod errno;

/// The library that speaks the protocol.
pub const LIBRARY_VERSION: &str = "fuser 0.18.0";

/// The protocol it speaks, see include/uapi/linux/fuse.h.
pub const KERNEL_INTERFACE: &str = "7.40";
