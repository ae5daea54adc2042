//! The front end `lamina`, with the real binary on stores of its own: images, the filesystem's own verbs, containers. Invariant: every store,
//! mount and process is a test's own and goes with it.

#![expect(clippy::unwrap_used, reason = "a test binary: to fail is to panic")]

/// The binary, and containers that never ran, on a store of its own.
mod front;

/// The verbs of images.
mod images;

/// diff, commit, cp, df: what a container changed, and how it becomes an image.
mod filesystem;

/// A store with an image in it, and whoever runs the commands: root, a user with one id, a user with many.
mod place;

/// What a container is made of.
mod run;

/// The verbs on containers, the monitor, and what is left afterwards.
mod life;

/// Many short lives beside a long one.
mod soak;

/// Volumes of the host, anonymous ones, and directories in memory.
mod mounts;

/// What mounts stand on is no change.
mod mountpoints;

/// A container in a terminal.
mod terminal;

/// A real Debian, in which dpkg and apt work.
mod packages;

/// What is refused, how, and that nothing is left.
mod bad_input;
