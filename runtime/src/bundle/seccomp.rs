//! The seccomp profile: the host's default one in docker's format, made one of the OCI's; and what a container with one id needs.
//!
//! Owns docker's `includes`, `excludes` and `archMap`. Must not know libseccomp. Invariant: a rule is kept or left out whole.

use crate::container::{Error, Result};
use crate::oci::log;
use serde_json::{Value, json};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where containers-common has its profile.
const DEFAULT: &str = "/usr/share/containers/seccomp.json";

/// In a user namespace with one id these can only fail or do nothing. Package managers give files to the owners that a package names, and drop
/// to users of their own: here both succeed and change nothing, as every owner shows as root and nobody else can be had. Callers that look
/// afterwards see the truth.
const OWNERS: [&str; 20] = [
    "chown",
    "chown32",
    "fchown",
    "fchown32",
    "lchown",
    "lchown32",
    "fchownat",
    "setuid",
    "setuid32",
    "setgid",
    "setgid32",
    "setreuid",
    "setreuid32",
    "setregid",
    "setregid32",
    "setresuid",
    "setresuid32",
    "setresgid",
    "setresgid32",
    "setgroups",
];

/// And its name on 32-bit machines.
const GROUPS_32: &str = "setgroups32";

/// Which profile.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Seccomp {
    /// That of containers-common, where the host has it.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// One in docker's format.
    File(PathBuf),
}

impl FromStr for Seccomp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Seccomp> {
        match text {
            "" | "builtin" => Ok(Seccomp::Default),
            "unconfined" => Ok(Seccomp::Unconfined),
            path => std::path::absolute(path).map(Seccomp::File).map_err(Error::io("find", Path::new(path))),
        }
    }
}

impl fmt::Display for Seccomp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Seccomp::Default => formatter.write_str("builtin"),
            Seccomp::Unconfined => formatter.write_str("unconfined"),
            Seccomp::File(path) => write!(formatter, "{}", path.display()),
        }
    }
}

impl Seccomp {
    /// The profile for a process with these capabilities, in the OCI's format.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Json`] for a file that was named.
    pub fn profile(&self, capabilities: &[&str]) -> Result<Option<Value>> {
        let path = match self {
            Seccomp::Unconfined => return Ok(None),
            Seccomp::Default if !Path::new(DEFAULT).exists() => {
                log::debug(&format!(
                    "no seccomp profile: {DEFAULT} is not there (package golang-github-containers-common)"
                ));
                return Ok(None);
            }
            Seccomp::Default => Path::new(DEFAULT),
            Seccomp::File(path) => path,
        };
        let text = std::fs::read(path).map_err(Error::io("read", path))?;
        let profile = serde_json::from_slice(&text).map_err(|cause| Error::Json { path: path.to_owned(), cause })?;
        Ok(Some(convert(&profile, capabilities, architecture())))
    }
}

/// This machine, as Go names it and as libseccomp does.
fn architecture() -> (&'static str, &'static str) {
    match std::env::consts::ARCH {
        "x86_64" => ("amd64", "SCMP_ARCH_X86_64"),
        "aarch64" => ("arm64", "SCMP_ARCH_AARCH64"),
        "x86" => ("386", "SCMP_ARCH_X86"),
        "arm" => ("arm", "SCMP_ARCH_ARM"),
        "powerpc64" => ("ppc64le", "SCMP_ARCH_PPC64LE"),
        "riscv64" => ("riscv64", "SCMP_ARCH_RISCV64"),
        "s390x" => ("s390x", "SCMP_ARCH_S390X"),
        _ => ("", "SCMP_ARCH_NATIVE"),
    }
}

fn convert(profile: &Value, capabilities: &[&str], (name, native): (&str, &str)) -> Value {
    let mut architectures = vec![json!(native)];
    let entries = profile["archMap"].as_array().into_iter().flatten();
    for entry in entries.filter(|entry| entry["architecture"] == native) {
        architectures.extend(entry["subArchitectures"].as_array().into_iter().flatten().cloned());
    }
    if let Some(given) = profile["architectures"].as_array() {
        architectures = given.clone();
    }
    let holds = |list: &Value, found: &dyn Fn(&str) -> bool| {
        list.as_array()
            .map(|list| list.iter().filter_map(Value::as_str).map(found).collect::<Vec<bool>>())
            .unwrap_or_default()
    };
    let applies = |rule: &&Value| {
        let has = |capability: &str| capabilities.contains(&capability);
        let is_here = |architecture: &str| architecture == name;
        let includes = &rule["includes"];
        let excludes = &rule["excludes"];
        let caps_in = holds(&includes["caps"], &has).iter().all(|held| *held);
        let here = holds(&includes["arches"], &is_here);
        let caps_out = holds(&excludes["caps"], &has).contains(&true);
        let elsewhere = holds(&excludes["arches"], &is_here).contains(&true);
        caps_in && (here.is_empty() || here.contains(&true)) && !caps_out && !elsewhere
    };
    let mut rules = Vec::new();
    for rule in profile["syscalls"].as_array().into_iter().flatten().filter(applies) {
        let mut kept = json!({"names": rule["names"], "action": rule["action"]});
        if rule["args"].as_array().is_some_and(|args| !args.is_empty()) {
            kept["args"] = rule["args"].clone();
        }
        if rule["errnoRet"].is_u64() {
            kept["errnoRet"] = rule["errnoRet"].clone();
        }
        rules.push(kept);
    }
    let mut converted =
        json!({"defaultAction": profile["defaultAction"], "architectures": architectures, "syscalls": rules});
    for key in ["defaultErrnoRet", "flags"] {
        if !profile[key].is_null() {
            converted[key] = profile[key].clone();
        }
    }
    converted
}

/// The profile, or one that allows everything, in which changes of owner and user succeed without effect.
pub fn with_one_id(profile: Option<Value>) -> Value {
    let mut profile = profile.unwrap_or_else(
        || json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": [architecture().1], "syscalls": []}),
    );
    let is_ours = |name: &Value| name.as_str().is_some_and(|name| OWNERS.contains(&name) || name == GROUPS_32);
    if let Some(rules) = profile["syscalls"].as_array_mut() {
        for rule in rules.iter_mut() {
            if let Some(names) = rule["names"].as_array_mut() {
                names.retain(|name| !is_ours(name));
            }
        }
        rules.retain(|rule| rule["names"].as_array().is_some_and(|names| !names.is_empty()));
        let names: Vec<&str> = OWNERS.into_iter().chain([GROUPS_32]).collect();
        rules.push(json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 0}));
    }
    profile
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_other_machines_and_capabilities_are_left_out() {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "defaultErrno": "ENOSYS",
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
            "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {}, "excludes": {}},
                {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
                {"names": ["set_tls"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm"]}},
                {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_CHROOT"]}},
                {"names": ["chroot"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "excludes": {"caps": ["CAP_SYS_CHROOT"]}},
                {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            ],
        });
        let converted = convert(&profile, &["CAP_SYS_CHROOT"], ("amd64", "SCMP_ARCH_X86_64"));
        let expected = json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["chroot"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
            ],
        });
        assert_eq!(converted, expected);
    }

    #[test]
    fn one_rule_answers_for_owners_where_there_is_one_id() {
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["read", "chown"], "action": "SCMP_ACT_ALLOW"}, {"names": ["setuid"], "action": "SCMP_ACT_ALLOW"}]});
        let rules = with_one_id(Some(profile))["syscalls"].clone();
        assert_eq!(rules[0]["names"], json!(["read"]));
        assert_eq!(rules.as_array().unwrap().len(), 2);
        assert_eq!(rules[1]["errnoRet"], 0);
        assert_eq!(with_one_id(None)["defaultAction"], "SCMP_ACT_ALLOW");
    }
}
