//! Seccomp profiles of config.json, compiled by libseccomp.
//!
//! Invariant: the whole profile is understood or refused before the container is made; only system calls that this kernel's
//! library does not know by name are left out, as the specification's callers list those of every architecture.

use super::log;
use crate::error::{Error, Result};
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompFilterFlag as Flag,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};

/// What a filter returns where config.json names no number. Source: config-linux.md, "Seccomp".
const ERRNO_DEFAULT: u32 = libc::EPERM as u32;

/// A compiled profile.
#[derive(Debug)]
pub struct Filter(ScmpFilterContext);

fn problem(place: &str) -> impl Fn(libseccomp::error::SeccompError) -> Error + '_ {
    move |error| Error::invalid(format!("linux.seccomp.{place}"), error.to_string())
}

impl Filter {
    /// Compiles a profile.
    pub fn compile(profile: &LinuxSeccomp) -> Result<Self> {
        if profile.listener_path().is_some()
            || profile.syscalls().iter().flatten().any(|rule| rule.action() == Action::ScmpActNotify)
        {
            return Err(Error::unsupported("linux.seccomp.listenerPath (SCMP_ACT_NOTIFY)", "use another action"));
        }
        let default = action(profile.default_action(), profile.default_errno_ret(), "defaultAction")?;
        let mut filter = ScmpFilterContext::new(default).map_err(problem("defaultAction"))?;
        // Whether new privileges are ruled out is process.noNewPrivileges' to say.
        filter.set_ctl_nnp(false).map_err(problem("defaultAction"))?;
        for name in profile.architectures().iter().flatten() {
            let architecture = architecture(*name)?;
            if !filter.is_arch_present(architecture).map_err(problem("architectures"))? {
                filter.add_arch(architecture).map_err(problem("architectures"))?;
            }
        }
        for flag in profile.flags().iter().flatten() {
            match flag {
                Flag::SeccompFilterFlagLog => filter.set_ctl_log(true),
                Flag::SeccompFilterFlagSpecAllow => filter.set_ctl_ssb(true),
                // One thread, so all threads.
                Flag::SeccompFilterFlagTsync => continue,
                Flag::SeccompFilterFlagWaitKillableRecv => {
                    return Err(Error::unsupported(
                        "linux.seccomp.flags: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
                        "it is for a listener",
                    ));
                }
            }
            .map_err(problem("flags"))?;
        }
        for rule in profile.syscalls().iter().flatten() {
            add(&mut filter, rule, default)?;
        }
        Ok(Filter(filter))
    }

    /// Puts the calling process under the filter, for good.
    pub fn load(&self) -> Result<()> {
        self.0.load().map_err(problem("syscalls: load the filter"))
    }
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
