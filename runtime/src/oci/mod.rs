//! The OCI lifecycle: a bundle becomes a container, and a container ends without a trace.
//!
//! Reading order: what is asked (`spec`, `state`), who makes it (`create`, `init`), what it is made of, and the verbs on what
//! exists. Must not know command lines. Invariant: whoever forks has one thread.

pub mod spec;
pub mod state;

pub mod create;
pub mod init;
pub mod sync;

pub mod capabilities;
pub mod cgroup;
pub mod console;
pub mod devices;
pub mod filter_cache;
pub mod hooks;
pub mod id_maps;
pub mod idle_namespace;
pub mod mount_options;
pub mod mountpoints;
pub mod mounts;
pub mod namespaces;
pub mod pidfd;
pub mod process;
pub mod resolve;
pub mod rlimits;
pub mod rootfs;
pub mod seal;
pub mod seccomp;
pub mod sysctl;
pub mod tmpfs;
pub mod user;

pub mod delete;
pub mod events;
pub mod exec;
pub mod features;
pub mod foreground;
pub mod kill;
pub mod pause;
pub mod start;
pub mod update;

pub mod log;
pub mod template;
