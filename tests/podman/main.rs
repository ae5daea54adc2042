//! Podman and Buildah with `mount_program = lamina-fs`, as root and as a user with a range of ids: what such callers do all day on a real Debian.
//! A binary of its own, as its needs are: processes, mounts and an /etc for itself, and minutes where others take seconds.
//!
//! Invariant: a test's containers, images and mounts live in namespaces of its own and end with them.

/// The mounts, processes and users of a test.
mod host;

/// Podman and Buildah on a store of their own.
mod podman;

/// What is built: a Debian, five steps, and what must come out.
mod image;

/// Building, running, committing, saving and loading.
mod builds;
