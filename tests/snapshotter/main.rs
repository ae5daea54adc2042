//! The snapshotter as containerd meets it: the real daemon on a socket of its own, as root.
//!
//! Invariant: what a test leaves in its store is removed through the daemon, and a process, mount or directory that is there
//! afterwards fails the test.

mod conformance;
mod containerd;
mod crash;
mod daemon;
mod full_disk;
mod lifetimes;
mod oci;
mod operations;
mod prune;
mod traced;
