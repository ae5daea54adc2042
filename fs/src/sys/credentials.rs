//! Whose file a new file becomes, and what this process may do.
//!
//! Owns the thread's filesystem ids and its view of capabilities. Invariant: a switched thread is switched back before the
//! guard's scope ends, and keeps all its capabilities meanwhile.

use crate::error::{Error, Result};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet};
use std::cell::Cell;

/// System calls that set both ids and look whether they are set.
const ACT_CALLS: u64 = 4;

thread_local! {
    /// Whether this thread keeps its capabilities when its fsuid leaves 0 (`SECBIT_NO_SETUID_FIXUP`).
    static KEEPS_CAPABILITIES: Cell<bool> = const { Cell::new(false) };
}

/// New files of this thread belong to somebody else until this is dropped.
pub struct AsOwner {
    uid: Uid,
    gid: Gid,
}

/// Switches the owner of files that this thread creates. See setfsuid(2).
///
/// # Errors
/// `NotPermitted` where this process may not act for others.
pub fn act_as(uid: u32, gid: u32) -> Result<AsOwner> {
    if !KEEPS_CAPABILITIES.get() {
        let bits = rustix::thread::capabilities_secure_bits().map_err(super::os("prctl"))?;
        rustix::thread::set_capabilities_secure_bits(bits | CapabilitiesSecureBits::NO_SETUID_FIXUP)
            .map_err(|_| Error::NotPermitted)?;
        KEEPS_CAPABILITIES.set(true);
    }
    super::calls::count(ACT_CALLS);
    let guard = AsOwner { gid: setfsgid(Gid::from_raw(gid)), uid: setfsuid(Uid::from_raw(uid)) };
    // setfsuid(2) reports no error: asking again tells whether it worked.
    let now = (setfsuid(Uid::from_raw(u32::MAX)), setfsgid(Gid::from_raw(u32::MAX)));
    if now != (Uid::from_raw(uid), Gid::from_raw(gid)) {
        return Err(Error::NotPermitted);
    }
    Ok(guard)
}

impl Drop for AsOwner {
    fn drop(&mut self) {
        super::calls::count(2);
        setfsuid(self.uid);
        setfsgid(self.gid);
    }
}

/// What this process may do, read once.
#[derive(Clone, Copy, Debug)]
pub struct Privilege {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// May open any file whatever its mode (`CAP_DAC_OVERRIDE`).
    pub overrides_modes: bool,
}

/// Reads effective ids and capabilities of this thread. See capabilities(7).
pub fn privilege() -> Result<Privilege> {
    let held = rustix::thread::capabilities(None).map_err(super::os("capget"))?.effective;
    Ok(Privilege {
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
        overrides_modes: held.contains(CapabilitySet::DAC_OVERRIDE),
    })
}

/// Whether a process belongs to a group, by its own group or by `Groups:` of proc(5); a process that is gone does not.
pub fn is_member(pid: u32, gid: u32, group: u32) -> bool {
    if gid == group {
        return true;
    }
    // open, fstat, two reads, close
    super::calls::count(5);
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    status
        .lines()
        .find_map(|line| line.strip_prefix("Groups:"))
        .is_some_and(|groups| groups.split_ascii_whitespace().any(|word| word.parse() == Ok(group)))
}

/// Whether a security module labels files: then a file has an attribute that its filesystem does not list. See proc(5),
/// `/proc/filesystems`; told to be so where it cannot be read.
pub fn labels_files() -> bool {
    let Ok(filesystems) = std::fs::read_to_string("/proc/filesystems") else { return true };
    filesystems.split_whitespace().any(|name| matches!(name, "selinuxfs" | "smackfs"))
}
