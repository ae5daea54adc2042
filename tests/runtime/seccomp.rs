//! Seccomp profiles: each operator, each answer.

use crate::bundle::{Bundle, chmod};
use serde_json::{Value, json};
use std::fs;
use support::{machine, needs};

fn filtered(rules: Value) -> Bundle {
    let mut bundle = Bundle::ours();
    bundle.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules}),
    );
    bundle
}

/// Whether `setpriority`-like calls with an argument are refused: `umask N` is a system call with one argument that a shell makes.
fn refuses(op: &str, value: u64, value_two: u64, argument: u32) -> bool {
    let args = json!([{"index": 0, "value": value, "valueTwo": value_two, "op": op}]);
    let mut bundle = filtered(json!([{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "args": args}]));
    let said = bundle.sh(&format!("kill -0 {argument} 2>&1; true"));
    said.contains("No space left")
}

#[test]
fn every_operator_compares() {
    needs!(machine::root(), machine::program("busybox"));
    let cases = [
        ("SCMP_CMP_EQ", 100, 0, [false, true, false]),
        ("SCMP_CMP_NE", 100, 0, [true, false, true]),
        ("SCMP_CMP_LT", 100, 0, [true, false, false]),
        ("SCMP_CMP_LE", 100, 0, [true, true, false]),
        ("SCMP_CMP_GT", 100, 0, [false, false, true]),
        ("SCMP_CMP_GE", 100, 0, [false, true, true]),
        // 99 is 0b1100011, 100 is 0b1100100, 101 is 0b1100101.
        ("SCMP_CMP_MASKED_EQ", 0b101, 0b100, [false, true, false]),
    ];
    for (op, value, two, expected) in cases {
        assert_eq!([99, 100, 101].map(|argument| refuses(op, value, two, argument)), expected, "{op}");
    }
}

#[test]
fn two_conditions_on_one_argument_mean_either() {
    needs!(machine::root(), machine::program("busybox"));
    let args = json!([{"index": 0, "value": 99, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 101, "op": "SCMP_CMP_EQ"}]);
    let mut bundle = filtered(json!([{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "args": args}]));
    let said = bundle.sh("for number in 99 100 101; do kill -0 $number 2>&1 | grep -c 'No space'; done; true");
    assert_eq!(said, "1\n0\n1\n");
}

#[test]
fn the_default_action_has_its_own_number() {
    needs!(machine::root(), machine::program("busybox"));
    let mut bundle = Bundle::ours();
    let denied = ["mkdir", "mkdirat"];
    bundle.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": denied, "action": "SCMP_ACT_ERRNO"}]}),
    );
    assert!(bundle.sh("mkdir /tmp/x 2>&1; true").contains("not permitted"));
    bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 5}));
    assert!(bundle.run().refuses().contains("takes no errnoRet"));
}

#[test]
fn a_killing_action_kills() {
    needs!(machine::root(), machine::program("busybox"));
    for action in ["SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL", "SCMP_ACT_TRAP"] {
        let mut bundle = filtered(json!([{"names": ["mkdir", "mkdirat"], "action": action}]));
        // 128 + SIGSYS.
        assert_eq!(bundle.sh("mkdir /tmp/x 2>/dev/null; echo $?"), "159\n", "{action}");
    }
}

#[test]
fn names_of_other_architectures_are_left_out() {
    needs!(machine::root(), machine::program("busybox"));
    filtered(json!([{"names": ["no_such_call", "arm_fadvise64_64"], "action": "SCMP_ACT_ERRNO"}])).run().ok();
}

#[test]
fn a_filter_without_no_new_privileges_is_loaded_while_there_is_privilege() {
    needs!(machine::root(), machine::program("busybox"));
    let mut bundle = filtered(json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]));
    bundle.set("/process/noNewPrivileges", json!(false)).set("/process/user", json!({"uid": 1000, "gid": 1000}));
    assert_eq!(bundle.sh("grep -e NoNewPrivs -e ^Seccomp: /proc/self/status"), "NoNewPrivs:\t0\nSeccomp:\t2\n");
}

#[test]
fn exec_is_filtered_too() {
    needs!(machine::root(), machine::program("busybox"));
    let mut bundle = filtered(json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]));
    assert!(bundle.running().exec("mkdir /tmp/x 2>&1; true").ok().contains("not permitted"));
}

/// Whatever lies where compiled filters are kept: the profile is what counts.
#[test]
fn a_kept_filter_does_what_the_profile_says_and_a_false_one_does_nothing() {
    needs!(machine::root(), machine::program("busybox"));
    let mut bundle = Bundle::ours();
    let filters = bundle.path().join("filters");
    bundle.before = vec!["env".to_owned(), format!("LAMINA_FILTERS={}", filters.display())];
    let deny = |bundle: &mut Bundle, number: u32| {
        let rule = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": number}]);
        bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule}));
        bundle.sh("mkdir /tmp/x 2>&1; true")
    };
    let kept = || fs::read_dir(&filters).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    for _ in 0..2 {
        assert!(deny(&mut bundle, 28).contains("No space left"));
        assert_eq!(kept().len(), 1);
    }
    let strict = kept().remove(0);
    assert!(deny(&mut bundle, 30).contains("Read-only file system"), "another profile is compiled anew");
    assert_eq!(kept().len(), 2);
    let other = kept().into_iter().find(|path| *path != strict).unwrap();
    let whole = fs::read(&strict).unwrap();
    for false_one in [fs::read(&other).unwrap(), whole[..whole.len() - 8].to_vec(), Vec::new()] {
        fs::write(&strict, false_one).unwrap();
        assert!(deny(&mut bundle, 28).contains("No space left"));
        assert_eq!(fs::read(&strict).unwrap(), whole, "it is replaced");
    }
    // That of the other profile under this one's name, as somebody could write it who may write to the directory.
    fs::write(&strict, &whole).unwrap();
    chmod(&filters, 0o770);
    assert!(deny(&mut bundle, 28).contains("No space left"));
    assert!(deny(&mut bundle, 5).contains("Input/output error"));
    assert_eq!(kept().len(), 2, "nothing is kept where others may write");
}
