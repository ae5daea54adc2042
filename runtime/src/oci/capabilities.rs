//! The five capability sets of a process.

use super::log;
use crate::error::{Doing, Result};
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
};

/// Number of a capability. Source: linux/capability.h.
fn number(capability: Capability) -> u32 {
    match capability {
        Capability::Chown => 0,
        Capability::DacOverride => 1,
        Capability::DacReadSearch => 2,
        Capability::Fowner => 3,
        Capability::Fsetid => 4,
        Capability::Kill => 5,
        Capability::Setgid => 6,
        Capability::Setuid => 7,
        Capability::Setpcap => 8,
        Capability::LinuxImmutable => 9,
        Capability::NetBindService => 10,
        Capability::NetBroadcast => 11,
        Capability::NetAdmin => 12,
        Capability::NetRaw => 13,
        Capability::IpcLock => 14,
        Capability::IpcOwner => 15,
        Capability::SysModule => 16,
        Capability::SysRawio => 17,
        Capability::SysChroot => 18,
        Capability::SysPtrace => 19,
        Capability::SysPacct => 20,
        Capability::SysAdmin => 21,
        Capability::SysBoot => 22,
        Capability::SysNice => 23,
        Capability::SysResource => 24,
        Capability::SysTime => 25,
        Capability::SysTtyConfig => 26,
        Capability::Mknod => 27,
        Capability::Lease => 28,
        Capability::AuditWrite => 29,
        Capability::AuditControl => 30,
        Capability::Setfcap => 31,
        Capability::MacOverride => 32,
        Capability::MacAdmin => 33,
        Capability::Syslog => 34,
        Capability::WakeAlarm => 35,
        Capability::BlockSuspend => 36,
        Capability::AuditRead => 37,
        Capability::Perfmon => 38,
        Capability::Bpf => 39,
        Capability::CheckpointRestore => 40,
    }
}

/// The highest that this file knows.
const LAST: u32 = 40;

fn one(number: u32) -> CapabilitySet {
    CapabilitySet::from_bits_retain(1 << number)
}

/// Sets of a process, as far as they can be granted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    bounding: CapabilitySet,
    sets: CapabilitySets,
    ambient: CapabilitySet,
}

impl Wanted {
    /// The sets of config.json; none at all where it has none. What this process does not have itself cannot be granted: the
    /// specification wants a warning then, not an error.
    pub fn of(asked: Option<&LinuxCapabilities>) -> Result<Self> {
        let own = capabilities(None).doing(|| "read our capabilities".into())?.permitted;
        let mut missing = CapabilitySet::empty();
        let mut set = |asked: Option<&Capabilities>| {
            let asked: CapabilitySet = asked.into_iter().flatten().map(|capability| one(number(*capability))).collect();
            missing |= asked - own;
            asked & own
        };
        let part = |part: fn(&LinuxCapabilities) -> &Option<Capabilities>| asked.and_then(|asked| part(asked).as_ref());
        let wanted = Wanted {
            bounding: set(part(LinuxCapabilities::bounding)),
            sets: CapabilitySets {
                effective: set(part(LinuxCapabilities::effective)),
                permitted: set(part(LinuxCapabilities::permitted)),
                inheritable: set(part(LinuxCapabilities::inheritable)),
            },
            ambient: set(part(LinuxCapabilities::ambient)),
        };
        if !missing.is_empty() {
            log::warn(&format!("process.capabilities: not ours to grant, left out: {missing:?}"));
        }
        Ok(wanted)
    }

    /// Before the user changes: what is not wanted can never be had again.
    pub fn bound(&self) -> Result<()> {
        for number in 0..=LAST {
            let capability = one(number);
            if self.bounding.contains(capability) {
                continue;
            }
            match capability_is_in_bounding_set(capability) {
                // An older kernel.
                Err(Errno::INVAL) | Ok(false) => {}
                outcome => {
                    outcome.doing(|| "read the bounding set".into())?;
                    remove_capability_from_bounding_set(capability)
                        .doing(|| format!("drop {capability:?} from the bounding set"))?;
                }
            }
        }
        Ok(())
    }

    /// After the user has changed.
    pub fn apply(&self) -> Result<()> {
        set_capabilities(None, self.sets).doing(|| format!("set process.capabilities to {:?}", self.sets))?;
        clear_ambient_capability_set().doing(|| "clear the ambient capabilities".into())?;
        let mut refused = CapabilitySet::empty();
        for capability in (0..=LAST).map(one).filter(|capability| self.ambient.contains(*capability)) {
            match configure_capability_in_ambient_set(capability, true) {
                // Only what is permitted and inheritable can be ambient; the specification wants a warning for the rest.
                Err(Errno::PERM) => refused |= capability,
                outcome => outcome.doing(|| format!("make {capability:?} ambient"))?,
            }
        }
        if !refused.is_empty() {
            log::warn(&format!(
                "process.capabilities.ambient: neither permitted nor inheritable, left out: {refused:?}"
            ));
        }
        Ok(())
    }
}

/// The names of all, for `features`.
pub fn names() -> Vec<String> {
    (0..=LAST)
        .filter_map(named)
        .filter_map(|capability| serde_json::to_value(capability).ok()?.as_str().map(str::to_owned))
        .collect()
}

fn named(wanted: u32) -> Option<Capability> {
    use oci_spec::runtime::Capability as C;
    let all = [
        C::AuditControl,
        C::AuditRead,
        C::AuditWrite,
        C::BlockSuspend,
        C::Bpf,
        C::CheckpointRestore,
        C::Chown,
        C::DacOverride,
        C::DacReadSearch,
        C::Fowner,
        C::Fsetid,
        C::IpcLock,
        C::IpcOwner,
        C::Kill,
        C::Lease,
        C::LinuxImmutable,
        C::MacAdmin,
        C::MacOverride,
        C::Mknod,
        C::NetAdmin,
        C::NetBindService,
        C::NetBroadcast,
        C::NetRaw,
        C::Perfmon,
        C::Setgid,
        C::Setfcap,
        C::Setpcap,
        C::Setuid,
        C::SysAdmin,
        C::SysBoot,
        C::SysChroot,
        C::SysModule,
        C::SysNice,
        C::SysPacct,
        C::SysPtrace,
        C::SysRawio,
        C::SysResource,
        C::SysTime,
        C::SysTtyConfig,
        C::Syslog,
        C::WakeAlarm,
    ];
    all.into_iter().find(|capability| number(*capability) == wanted)
}
