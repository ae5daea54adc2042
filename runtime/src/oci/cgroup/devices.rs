//! Which devices a container may open and make.
//!
//! Version 1 takes the rules as text; version 2 takes a program for the kernel's BPF machine. Invariant: what every container
//! needs (the default devices and terminals) stays allowed whatever the rules say, as in every other runtime.

use super::{Membership, put};
use crate::error::{Doing, Error, Result};
use crate::sys::bpf::{self, Instruction};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::os::fd::AsFd;

/// One rule. `None` means any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: Option<char>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

const MAKE: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const ALL: u32 = MAKE | READ | WRITE;

/// Always allowed: making any node, the default devices, terminals and their multiplexer.
const ALWAYS: [(char, Option<u32>, Option<u32>, u32); 10] = [
    ('c', None, None, MAKE),
    ('b', None, None, MAKE),
    ('c', Some(1), Some(3), ALL),
    ('c', Some(1), Some(5), ALL),
    ('c', Some(1), Some(7), ALL),
    ('c', Some(1), Some(8), ALL),
    ('c', Some(1), Some(9), ALL),
    ('c', Some(5), Some(0), ALL),
    ('c', Some(5), Some(2), ALL),
    ('c', Some(136), None, ALL),
];

impl Rule {
    fn parse(rule: &LinuxDeviceCgroup) -> Result<Self> {
        let place = "linux.resources.devices";
        let number = |value: Option<i64>| match value {
            None | Some(-1) => Ok(None),
            Some(value) => u32::try_from(value)
                .map(Some)
                .map_err(|_| Error::invalid(place, format!("{value} is no device number"))),
        };
        let mut access = 0;
        for letter in rule.access().as_deref().unwrap_or("rwm").chars() {
            access |= match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MAKE,
                _ => return Err(Error::invalid(place, format!("access {letter:?} is none of r, w and m"))),
            };
        }
        let kind = match rule.typ() {
            None | Some(LinuxDeviceType::A) => None,
            Some(LinuxDeviceType::B) => Some('b'),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some('c'),
            Some(LinuxDeviceType::P) => return Err(Error::invalid(place, "a rule cannot be for a fifo")),
        };
        Ok(Rule { allow: rule.allow(), kind, major: number(rule.major())?, minor: number(rule.minor())?, access })
    }

    /// As the files of version 1 take it.
    fn line(&self) -> String {
        let Some(kind) = self.kind else { return "a".into() };
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        let letters = [(READ, 'r'), (WRITE, 'w'), (MAKE, 'm')];
        let access: String =
            letters.iter().filter(|(bit, _)| self.access & bit != 0).map(|(_, letter)| *letter).collect();
        format!("{kind} {}:{} {access}", number(self.major), number(self.minor))
    }
}

/// Sets the rules, if there are any.
pub fn apply(membership: &Membership, rules: &[LinuxDeviceCgroup]) -> Result<()> {
    if rules.is_empty() {
        return Ok(());
    }
    let mut rules: Vec<Rule> = rules.iter().map(Rule::parse).collect::<Result<_>>()?;
    let always =
        ALWAYS.map(|(kind, major, minor, access)| Rule { allow: true, kind: Some(kind), major, minor, access });
    rules.extend(always);
    if let Some(directory) = membership.directory("devices") {
        for rule in &rules {
            let file = if rule.allow { "devices.allow" } else { "devices.deny" };
            match put(&directory.path, file, &rule.line()) {
                // The root of a user namespace may not, and cannot make nodes either.
                Err(error) if error.errno() == Some(libc::EPERM) && crate::oci::state::rootless() => return Ok(()),
                outcome => outcome?,
            }
        }
        return Ok(());
    }
    let Some(directory) = membership.unified() else { return Ok(()) };
    let loaded = match bpf::load_device_program(&program(&rules)) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) && crate::oci::state::rootless() => return Ok(()),
        outcome => outcome.doing(|| "load linux.resources.devices into the kernel".into())?,
    };
    let doing = || format!("guard the devices of cgroup {}", directory.path.display());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let cgroup = openat(CWD, &directory.path, flags, Mode::empty()).doing(doing)?;
    bpf::attach_to_cgroup(cgroup.as_fd(), loaded.as_fd()).doing(doing)
}

// Opcodes of linux/bpf.h and linux/bpf_common.h, put together.
const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE: u8 = 0xbc;
const MOVE_CONSTANT: u8 = 0xb4;
const SKIP_UNLESS_EQUAL: u8 = 0x56;
const SKIP_IF_EQUAL: u8 = 0x16;
const SKIP_UNLESS_SAME: u8 = 0x5e;
const EXIT: u8 = 0x95;

/// The last rule that matches decides, so the program asks the last one first. What no rule matches is allowed, as in version 1.
///
/// Registers: 1 the context, 2 the type, 3 the access, 4 major, 5 minor, 6 scratch. Source: `struct bpf_cgroup_dev_ctx`.
fn program(rules: &[Rule]) -> Vec<Instruction> {
    let code = |code, registers, offset, immediate| Instruction { code, registers, offset, immediate };
    let mut program = vec![
        code(LOAD_WORD, 0x12, 0, 0),
        code(AND, 0x02, 0, 0xffff),
        code(LOAD_WORD, 0x13, 0, 0),
        code(SHIFT_RIGHT, 0x03, 0, 16),
        code(LOAD_WORD, 0x14, 4, 0),
        code(LOAD_WORD, 0x15, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let mut tests = Vec::new();
        if let Some(kind) = rule.kind {
            tests.push(code(SKIP_UNLESS_EQUAL, 0x02, 0, if kind == 'b' { 1 } else { 2 }));
        }
        if rule.access != ALL {
            tests.push(code(MOVE, 0x36, 0, 0));
            tests.push(code(AND, 0x06, 0, rule.access as i32));
            // Allowed is what is allowed whole; denied is what is denied in part.
            tests.push(if rule.allow { code(SKIP_UNLESS_SAME, 0x36, 0, 0) } else { code(SKIP_IF_EQUAL, 0x06, 0, 0) });
        }
        if let Some(major) = rule.major {
            tests.push(code(SKIP_UNLESS_EQUAL, 0x04, 0, major as i32));
        }
        if let Some(minor) = rule.minor {
            tests.push(code(SKIP_UNLESS_EQUAL, 0x05, 0, minor as i32));
        }
        let length = tests.len();
        for (at, test) in tests.iter_mut().enumerate() {
            let is_jump = matches!(test.code, SKIP_UNLESS_EQUAL | SKIP_IF_EQUAL | SKIP_UNLESS_SAME);
            // To behind this rule's verdict, which is two instructions.
            test.offset = if is_jump { (length - at - 1 + 2) as i16 } else { 0 };
        }
        let unconditional = length == 0;
        program.extend(tests);
        program.extend([code(MOVE_CONSTANT, 0x00, 0, i32::from(rule.allow)), code(EXIT, 0, 0, 0)]);
        if unconditional {
            // The verifier refuses instructions that nothing leads to.
            return program;
        }
    }
    program.extend([code(MOVE_CONSTANT, 0x00, 0, 1), code(EXIT, 0, 0, 0)]);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_written_as_version_1_reads_them() {
        let rule = |text: &str| Rule::parse(&serde_json::from_str(text).unwrap()).unwrap().line();
        assert_eq!(rule(r#"{"allow":false}"#), "a");
        assert_eq!(rule(r#"{"allow":true,"type":"c","major":10,"access":"rw"}"#), "c 10:* rw");
    }

    /// Needs root and a version 2 hierarchy: the program is loaded, and decides for a process.
    #[test]
    fn the_kernel_takes_the_program_and_obeys_it() {
        let layout = super::super::layout::Layout::detect().unwrap();
        let Some(hierarchy) = layout.0.iter().find(|hierarchy| hierarchy.unified) else {
            return println!("SKIPPED: no cgroup hierarchy of version 2 is mounted");
        };
        let path = hierarchy.point.join(format!("lamina-unit-{}", std::process::id()));
        if let Err(error) = std::fs::create_dir(&path) {
            return println!("SKIPPED: {}: {error}", path.display());
        }
        let membership =
            Membership(vec![super::super::Directory { path: path.clone(), controllers: Vec::new(), unified: true }]);
        let rules = r#"[{"allow":false}, {"allow":true,"type":"c","major":1,"minor":11,"access":"w"}]"#;
        let applied = apply(&membership, &serde_json::from_str::<Vec<_>>(rules).unwrap());
        let script = "echo $$ > $0/cgroup.procs; : < /dev/zero && echo zero; (: < /dev/kmsg) 2>&1 | grep -c permitted; : > /dev/kmsg && echo written";
        let output = std::process::Command::new("sh").args(["-c", script]).arg(&path).output().unwrap();
        membership.remove().unwrap();
        applied.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "zero\n1\nwritten\n", "{output:?}");
    }

    #[test]
    fn a_program_ends_at_the_rule_for_everything() {
        let everything = Rule { allow: false, kind: None, major: None, minor: None, access: ALL };
        let null = Rule { allow: true, kind: Some('c'), major: Some(1), minor: Some(3), access: READ };
        let program = program(&[null, everything]);
        assert_eq!(program.len(), 8);
        assert_eq!(program.last().map(|last| last.code), Some(EXIT));
    }
}
