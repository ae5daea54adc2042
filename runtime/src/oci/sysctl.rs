//! Kernel parameters of the container's namespaces.
//!
//! Invariant: a parameter that no namespace of the container holds is refused: it would change the host.

use super::namespaces::Plan;
use super::resolve;
use crate::error::{Error, Result};
use oci_spec::runtime::LinuxNamespaceType as Kind;
use std::collections::HashMap;
use std::os::fd::BorrowedFd;

/// Parameters of the IPC namespace. Source: ipc/ipc_sysctl.c.
const IPC: [&str; 9] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.auto_msgmni",
];

/// Refuses what belongs to no namespace of the container.
pub fn check(plan: &Plan, parameters: &HashMap<String, String>) -> Result<()> {
    for name in parameters.keys() {
        let dotted = name.replace('/', ".");
        let namespace = match dotted.as_str() {
            "kernel.hostname" | "kernel.domainname" => Some(Kind::Uts),
            ipc if IPC.contains(&ipc) || ipc.starts_with("fs.mqueue.") => Some(Kind::Ipc),
            net if net.starts_with("net.") => Some(Kind::Network),
            user if user.starts_with("user.") => Some(Kind::User),
            _ => None,
        };
        let problem = match namespace {
            Some(kind) if plan.has(kind) => continue,
            Some(kind) => format!("needs a namespace of type {kind}, or it would change the host"),
            None => "is not in a separate kernel namespace, so it would change the host".to_owned(),
        };
        return Err(Error::invalid(format!("linux.sysctl: {name}"), problem));
    }
    Ok(())
}

/// Sets them, from inside the namespaces, through the host's procfs: the kernel shows each process its own there.
pub fn set(proc: BorrowedFd<'_>, parameters: &HashMap<String, String>) -> Result<()> {
    for (name, value) in parameters {
        // With a slash in it the name is a path already, and its dots are dots.
        let path = if name.contains('/') { name.clone() } else { name.replace('.', "/") };
        resolve::write_proc(proc, &format!("sys/{path}"), value)?;
    }
    Ok(())
}
