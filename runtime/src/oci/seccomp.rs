//! Seccomp profiles of config.json, compiled by libseccomp or found compiled.
//!
//! Invariant: the whole profile is understood or refused before the container is made; only system calls that this kernel's
//! library does not know by name are left out, as the specification's callers list those of every architecture.

use super::filter_cache::{FilterCache, INSTRUCTION_BYTES};
use super::log;
use crate::error::{Doing, Error, Result};
use crate::sys::seccomp::{Instruction, set_filter};
use lamina_snapshotter::digest::Digest;
use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall, ScmpVersion, get_api,
};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompFilterFlag as Flag,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{Read as _, Seek as _};

/// What a filter returns where config.json names no number. Source: config-linux.md, "Seccomp".
const ERRNO_DEFAULT: u32 = libc::EPERM as u32;

/// A compiled profile.
#[derive(Debug, PartialEq, Eq)]
pub struct Filter {
    program: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*`.
    flags: libc::c_ulong,
}

fn problem(place: &str) -> impl Fn(libseccomp::error::SeccompError) -> Error + '_ {
    move |error| Error::invalid(format!("linux.seccomp.{place}"), error.to_string())
}

impl Filter {
    /// The filter of a profile: as it was kept, else compiled, and then kept.
    pub fn of(profile: &LinuxSeccomp) -> Result<Self> {
        Filter::with(profile, FilterCache::of_user().as_ref())
    }

    fn with(profile: &LinuxSeccomp, cache: Option<&FilterCache>) -> Result<Self> {
        let flags = flags(profile)?;
        let key = key(profile)?;
        if let Some(bytes) = cache.and_then(|cache| cache.find(&key)) {
            return Ok(Filter { program: instructions(&bytes), flags });
        }
        let bytes = compile(profile)?;
        if let Some(cache) = cache {
            cache.keep(&key, &bytes);
        }
        Ok(Filter { program: instructions(&bytes), flags })
    }

    /// Puts the calling process under the filter, for good.
    pub fn load(&self) -> Result<()> {
        set_filter(&self.program, self.flags).doing(|| "load the filter of linux.seccomp".into())
    }
}

/// What decides on the instructions: what was asked for, and who compiles it for which kernel.
fn key(profile: &LinuxSeccomp) -> Result<Digest> {
    let version = ScmpVersion::current().map_err(problem("syscalls"))?;
    let text = serde_json::to_string(profile).map_err(|error| Error::invalid("linux.seccomp", error.to_string()))?;
    let compiler = format!(
        "lamina-oci {} {} libseccomp {version} api {}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        get_api()
    );
    Ok(Digest::of((compiler + &text).as_bytes()))
}

/// How the filter is loaded, which is no part of its instructions.
fn flags(profile: &LinuxSeccomp) -> Result<libc::c_ulong> {
    let mut flags = 0;
    for flag in profile.flags().iter().flatten() {
        flags |= match flag {
            Flag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
            Flag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            // One thread, so all threads.
            Flag::SeccompFilterFlagTsync => 0,
            Flag::SeccompFilterFlagWaitKillableRecv => {
                return Err(Error::unsupported(
                    "linux.seccomp.flags: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
                    "it is for a listener",
                ));
            }
        };
    }
    Ok(flags)
}

fn instructions(bytes: &[u8]) -> Vec<Instruction> {
    let (whole, _) = bytes.as_chunks::<INSTRUCTION_BYTES>();
    whole
        .iter()
        .map(|&[c0, c1, jump_true, jump_false, k0, k1, k2, k3]| Instruction {
            code: u16::from_ne_bytes([c0, c1]),
            jump_true,
            jump_false,
            constant: u32::from_ne_bytes([k0, k1, k2, k3]),
        })
        .collect()
}

/// Compiles a profile into instructions.
fn compile(profile: &LinuxSeccomp) -> Result<Vec<u8>> {
    if profile.listener_path().is_some()
        || profile.syscalls().iter().flatten().any(|rule| rule.action() == Action::ScmpActNotify)
    {
        return Err(Error::unsupported("linux.seccomp.listenerPath (SCMP_ACT_NOTIFY)", "use another action"));
    }
    let default = action(profile.default_action(), profile.default_errno_ret(), "defaultAction")?;
    let mut filter = ScmpFilterContext::new(default).map_err(problem("defaultAction"))?;
    for name in profile.architectures().iter().flatten() {
        let architecture = architecture(*name)?;
        if !filter.is_arch_present(architecture).map_err(problem("architectures"))? {
            filter.add_arch(architecture).map_err(problem("architectures"))?;
        }
    }
    for rule in profile.syscalls().iter().flatten() {
        add(&mut filter, rule, default)?;
    }
    export(&filter)
}

fn export(filter: &ScmpFilterContext) -> Result<Vec<u8>> {
    let doing = || "write the filter of linux.seccomp to memory".to_owned();
    let mut file = File::from(memfd_create("filter", MemfdFlags::CLOEXEC).doing(doing)?);
    filter.export_bpf(&file).map_err(problem("syscalls"))?;
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).doing(doing)?;
    Ok(bytes)
}

fn add(filter: &mut ScmpFilterContext, rule: &LinuxSyscall, default: ScmpAction) -> Result<()> {
    let wanted = action(rule.action(), rule.errno_ret(), "syscalls")?;
    if wanted == default {
        // Nothing would change, and the library refuses such rules.
        return Ok(());
    }
    for name in rule.names() {
        let Ok(call) = ScmpSyscall::from_name(name) else {
            log::debug(&format!("linux.seccomp.syscalls: {name} is unknown here, left out"));
            continue;
        };
        let place = format!("syscalls: {name}");
        let arguments = rule.args().as_deref().unwrap_or_default();
        let conditions: Vec<ScmpArgCompare> = arguments.iter().map(condition).collect::<Result<_>>()?;
        let mut indexes: Vec<usize> = arguments.iter().map(LinuxSeccompArg::index).collect();
        indexes.sort_unstable();
        indexes.dedup();
        if indexes.len() == arguments.len() {
            filter.add_rule_conditional(wanted, call, &conditions).map_err(problem(&place))?;
            continue;
        }
        // One argument with two conditions: one kernel rule cannot hold both, and callers have always meant either.
        for condition in conditions {
            filter.add_rule_conditional(wanted, call, &[condition]).map_err(problem(&place))?;
        }
    }
    Ok(())
}

fn action(action: Action, number: Option<u32>, place: &str) -> Result<ScmpAction> {
    let takes_number = matches!(action, Action::ScmpActErrno | Action::ScmpActTrace);
    if number.is_some() && !takes_number {
        return Err(Error::invalid(format!("linux.seccomp.{place}"), format!("{action} takes no errnoRet")));
    }
    let number = number.unwrap_or(ERRNO_DEFAULT);
    let too_large = || Error::invalid(format!("linux.seccomp.{place}"), format!("errnoRet {number} is above 65535"));
    let number = u16::try_from(number).map_err(|_| too_large())?;
    Ok(match action {
        Action::ScmpActKill | Action::ScmpActKillThread => ScmpAction::KillThread,
        Action::ScmpActKillProcess => ScmpAction::KillProcess,
        Action::ScmpActTrap => ScmpAction::Trap,
        Action::ScmpActErrno => ScmpAction::Errno(i32::from(number)),
        Action::ScmpActTrace => ScmpAction::Trace(number),
        Action::ScmpActLog => ScmpAction::Log,
        Action::ScmpActAllow => ScmpAction::Allow,
        Action::ScmpActNotify => return Err(Error::unsupported("SCMP_ACT_NOTIFY", "use another action")),
    })
}

fn condition(argument: &LinuxSeccompArg) -> Result<ScmpArgCompare> {
    let index = u32::try_from(argument.index()).ok().filter(|index| *index < 6);
    let index = index.ok_or_else(|| Error::invalid("linux.seccomp.syscalls.args", "a system call has 6 arguments"))?;
    let (operator, datum) = match argument.op() {
        Operator::ScmpCmpNe => (ScmpCompareOp::NotEqual, argument.value()),
        Operator::ScmpCmpLt => (ScmpCompareOp::Less, argument.value()),
        Operator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, argument.value()),
        Operator::ScmpCmpEq => (ScmpCompareOp::Equal, argument.value()),
        Operator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, argument.value()),
        Operator::ScmpCmpGt => (ScmpCompareOp::Greater, argument.value()),
        // The mask comes first in config.json.
        Operator::ScmpCmpMaskedEq => (ScmpCompareOp::MaskedEqual(argument.value()), argument.value_two().unwrap_or(0)),
    };
    Ok(ScmpArgCompare::new(index, operator, datum))
}

fn architecture(name: Arch) -> Result<ScmpArch> {
    Ok(match name {
        Arch::ScmpArchNative => ScmpArch::Native,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchMips => ScmpArch::Mips,
        Arch::ScmpArchMips64 => ScmpArch::Mips64,
        Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
        Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::ScmpArchPpc => ScmpArch::Ppc,
        Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchS390 => ScmpArch::S390,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        Arch::ScmpArchParisc => ScmpArch::Parisc,
        Arch::ScmpArchParisc64 => ScmpArch::Parisc64,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        other => return Err(Error::unsupported(format!("linux.seccomp.architectures: {other}"), "remove it")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(number: u32) -> LinuxSeccomp {
        let text = format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"],
                "syscalls": [{{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": {number}}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_filter_is_the_same_kept_and_compiled_and_another_for_another_profile() {
        let home = tempfile::tempdir().unwrap();
        let cache = FilterCache::open(&home.path().join("filters")).unwrap().unwrap();
        let files = || std::fs::read_dir(home.path().join("filters")).unwrap().count();
        let plain = Filter::with(&profile(28), None).unwrap();
        assert_eq!(files(), 0);
        for _ in 0..2 {
            assert_eq!(Filter::with(&profile(28), Some(&cache)).unwrap(), plain);
            assert_eq!(files(), 1);
        }
        assert_ne!(Filter::with(&profile(29), Some(&cache)).unwrap(), plain);
        assert_eq!(files(), 2);
        assert_eq!(plain.flags, libc::SECCOMP_FILTER_FLAG_LOG);
        // It is the kept one that is used, as its key says that nothing else has changed.
        let key = key(&profile(28)).unwrap();
        cache.keep(&key, &[6, 0, 0, 0, 0, 0, 0, 0]);
        let kept = Filter::with(&profile(28), Some(&cache)).unwrap();
        assert_eq!(kept.program, [Instruction { code: 6, jump_true: 0, jump_false: 0, constant: 0 }]);
    }
}
