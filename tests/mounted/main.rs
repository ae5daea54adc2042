//! Lamina mounted by root, one file a promise. Needs root and /dev/fuse; what else a test needs it says, and skips.
//!
//! - `oracle`: random sequences on Lamina and on the kernel's overlayfs.
//! - `hardlinks`: names of one lower file stay names of one file.
//! - `handles`: descriptors follow the file over copy-up, unlink and replacement.
//! - `copy_up`: what a copy keeps, what it does not copy, what it does when the disk is full.
//! - `whiteouts`: every format read, in every layer; what is written.
//! - `interop`: uppers go to and come from the kernel's overlayfs and fuse-overlayfs.
//! - `identity`: inode numbers.
//! - `index`: lower layers answered for by an index.
//! - `files`: the calls on files: fallocate, seek, locks, ioctls, privileges.
//! - `names`: the calls on names: nodes, umask, ACLs, long names, setgid directories.
//! - `options`: the command line.
//! - `mapping`: the options that change owners and modes.
//! - `bad_input`: what is refused, and how.
//! - `detached`: a mount by descriptor, put into the tree by somebody else.
//! - `limits`: descriptors and memory.
//! - `listing`: reading directories while they change.
//! - `failing_disks`: disks that are full, over quota or broken.
//! - `concurrency`: many threads.
//! - `requests`: what sequences of calls cost.
//! - `rootless`: the others again, as a user without privileges.
//! - `usage`: what a mount says that its upper layer takes.
//! - `passthrough`: `io=passthrough`, in which the kernel reaches files by itself.

#![expect(clippy::unwrap_used, reason = "a test binary: to fail is to panic")]

mod bad_input;
mod concurrency;
mod copy_up;
mod detached;
mod failing_disks;
mod files;
mod handles;
mod hardlinks;
mod identity;
mod index;
mod interop;
mod limits;
mod listing;
mod mapping;
mod names;
mod options;
mod oracle;
mod passthrough;
mod requests;
mod rootless;
mod usage;
mod whiteouts;
