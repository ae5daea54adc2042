//! What the union says that its upper layer takes, after each operation of random sequences, against a walk of the directory. It owns the
//! comparison.

use support::oracle::{Cases, Errno, Formats, Model, Op, Reply, Stack, Target, follow};
use support::tree::Tree;
use support::usage::walk;
use support::{Entry, Layers};

use crate::target::{InProcess, privileged};

/// A union that is asked after each operation.
struct Asked<'layers> {
    target: InProcess<'layers>,
    layers: &'layers Layers,
    difference: Option<String>,
}

impl Asked<'_> {
    fn ask(&mut self, after: &dyn std::fmt::Debug) {
        let told = self.target.union().usage().expect("the usage");
        let told = told.map(|usage| (usage.bytes, usage.inodes));
        let walked = Some(walk(&self.layers.upper));
        if told != walked && self.difference.is_none() {
            self.difference = Some(format!("after {after:?}: told {told:?}, a walk finds {walked:?}"));
        }
    }
}

impl Target for Asked<'_> {
    fn apply(&mut self, op: &Op) -> Result<Reply, Errno> {
        let reply = self.target.apply(op);
        self.ask(op);
        reply
    }

    fn tree(&mut self) -> Tree {
        self.target.tree()
    }

    fn remount(&mut self) {
        self.target.remount();
        self.ask(&"a remount");
    }

    fn drop_caches(&mut self) {
        self.target.drop_caches();
        self.ask(&"forgetting");
    }
}

fn run(stack: &Stack, ops: &[Op]) -> Result<(), String> {
    let literals = stack.literals(Formats::All { privileged: privileged() });
    let literals: Vec<&[Entry]> = literals.iter().map(Vec::as_slice).collect();
    let layers = Layers::new(&literals);
    let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut model = Model::new(stack, privileged(), owner);
    let mut target = Asked { target: InProcess::new(&layers), layers: &layers, difference: None };
    if target.target.union().usage().expect("the usage").is_none() {
        target.target.union().recount().expect("counts");
    }
    target.ask(&"the mount");
    follow(&mut target, &mut model, ops)?;
    target.difference.map_or(Ok(()), Err)
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
