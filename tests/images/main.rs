//! Images, with the real binary and the field's own tools: layers that umoci made, registries that Debian ships, pipes, cuts
//! and kills. Invariant: every store, server and mount is a test's own and goes with it.

/// The binary on a store of its own.
mod command;

/// Archives and layouts in and out; what other tools make of what we write.
mod archives;

/// What is unpacked against what umoci unpacks.
mod unpacked;

/// Pull and push.
mod registry;

/// Without privilege.
mod rootless;

/// Killed at any call.
mod crash;

/// Killed at random moments, often.
mod kills;

/// Random layers: what a changeset of them shows.
mod roundtrip;
