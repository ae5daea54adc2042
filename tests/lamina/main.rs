//! The front end `lamina`, with the real binary on stores of its own: images, the filesystem's own verbs, containers. Invariant: every store,
//! mount and process is a test's own and goes with it.

/// The binary, and containers that never ran, on a store of its own.
mod front;

/// The verbs of images.
mod images;

/// diff, commit, cp, df: what a container changed, and how it becomes an image.
mod filesystem;
