//! What the union says that its upper layer takes, after each operation of random sequences, against a walk of the directory.

use support::oracle::{Cases, Formats, Model, Op, Stack, follow};
use support::usage::Judged;
use support::{Entry, Layers};

use crate::target::{InProcess, privileged};

fn run(stack: &Stack, ops: &[Op]) -> Result<(), String> {
    let literals = stack.literals(Formats::All { privileged: privileged() });
    let literals: Vec<&[Entry]> = literals.iter().map(Vec::as_slice).collect();
    let layers = Layers::new(&literals);
    let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut model = Model::new(stack, privileged(), owner);
    let target = InProcess::new(&layers);
    if target.union().usage().expect("the usage").is_none() {
        target.union().recount().expect("counts");
    }
    let mut judged = Judged::new(target, &layers.upper, |target| {
        let usage = target.union().usage().expect("the usage").expect("it is known");
        (usage.bytes, usage.inodes)
    });
    follow(&mut judged, &mut model, ops)?;
    judged.verdict()
}

#[test]
fn usage_is_that_of_a_walk_after_each_operation() {
    Cases::new(64, 40, 4000).check(run);
}

#[test]
fn usage_survives_remounts() {
    Cases::new(64, 8, 4000).check(|stack, ops| {
        let remounted: Vec<Op> = ops.iter().flat_map(|op| [op.clone(), Op::Remount]).collect();
        run(stack, &remounted)
    });
}

#[test]
fn usage_survives_forgetting() {
    Cases::new(64, 12, 4000).check(|stack, ops| {
        let dropped: Vec<Op> = ops.iter().flat_map(|op| [op.clone(), Op::DropCaches]).collect();
        run(stack, &dropped)
    });
}
