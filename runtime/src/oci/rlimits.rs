//! Resource limits of a process.

use crate::error::{Doing, Error, Result};
use oci_spec::runtime::{PosixRlimit, PosixRlimitType};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

/// `RLIM_INFINITY` as config.json writes it.
const UNLIMITED: u64 = u64::MAX;

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}

/// Sets the limits of a process, `None` being the caller. The runtime does it from outside: it may have the right to raise one
/// where the root of a user namespace has not.
pub fn set(process: Option<Pid>, limits: &[PosixRlimit]) -> Result<()> {
    for limit in limits {
        let place = || format!("process.rlimits: {} to {}:{}", limit.typ(), limit.soft(), limit.hard());
        if limit.soft() > limit.hard() {
            return Err(Error::invalid(place(), "the soft limit is above the hard one"));
        }
        let bound = |value: u64| (value != UNLIMITED).then_some(value);
        let new = Rlimit { current: bound(limit.soft()), maximum: bound(limit.hard()) };
        prlimit(process, resource(limit.typ()), new).doing(place)?;
    }
    Ok(())
}

/// Fewer descriptors than the runtime itself needs inside before it executes the program.
const DESCRIPTORS_MIN: u64 = 256;

/// What the runtime sets from outside.
pub fn early(limits: &[PosixRlimit]) -> Vec<PosixRlimit> {
    limits.iter().filter(|limit| !is_late(limit)).copied().collect()
}

/// What is set last, from inside: it only lowers, so it needs no privilege.
pub fn late(limits: &[PosixRlimit]) -> Vec<PosixRlimit> {
    limits.iter().filter(|limit| is_late(limit)).copied().collect()
}

fn is_late(limit: &PosixRlimit) -> bool {
    limit.typ() == PosixRlimitType::RlimitNofile && limit.soft() < DESCRIPTORS_MIN
}
