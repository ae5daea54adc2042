//! Containers for real: the binary `lamina-oci`, the kernel, and the callers that people use. Needs root; the tests of an unprivileged user step down.
//!
//! - `musts`: what the specification demands, one test a requirement. `compare-runtimes` asks runc and crun the same.
//! - `verbs`: the command line that callers expect, beyond the specification.
//! - `security`: every hole that runtimes are known to have had.
//! - `seccomp`: the whole profile.
//! - `terminal`: a terminal under a terminal.
//! - `rootless`: the same without privileges.
//! - `callers`: containerd, Podman and Buildah.
//! - `soak`: again and again, and nothing is left.

mod bundle;
mod callers;
mod musts;
mod rootless;
mod seccomp;
mod security;
mod soak;
mod terminal;
mod verbs;
