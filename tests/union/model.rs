//! Random sequences on random stacks: the union in process against the model. It owns what must hold after each sequence besides the tree:
//! lowers untouched, nothing left in work.

use support::oracle::{Cases, Formats, Model, Op, Stack, follow};
use support::{Entry, Layers};

use crate::target::{InProcess, privileged};

/// Runs one sequence, from fresh layers to the last check.
pub fn run(stack: &Stack, ops: &[Op]) -> Result<(), String> {
    run_with(Below::Layers, stack, ops)
}

/// What answers for the lower layers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Below {
    Layers,
    Index,
}

fn run_with(below: Below, stack: &Stack, ops: &[Op]) -> Result<(), String> {
    let literals = stack.literals(Formats::All { privileged: privileged() });
    let literals: Vec<&[Entry]> = literals.iter().map(Vec::as_slice).collect();
    let layers = Layers::new(&literals);
    let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut model = Model::new(stack, privileged(), owner);
    let mut target = match below {
        Below::Layers => InProcess::new(&layers),
        Below::Index => InProcess::with_index(&layers),
    };
    follow(&mut target, &mut model, ops)?;
    layers.assert_lowers_untouched();
    let left = layers.names_in_work();
    if left.is_empty() { Ok(()) } else { Err(format!("left in work after a remount: {left:?}")) }
}

/// The headline: whatever is done, in whatever order, over whatever stack, the union is a plain directory tree.
#[test]
fn random_sequences_show_what_the_model_shows() {
    Cases::new(64, 40, 4000).check(run);
}

/// Many remounts and short sequences: what must survive a remount is found here.
#[test]
fn short_sequences_survive_remounts() {
    Cases::new(64, 8, 4000).check(|stack, ops| {
        let remounted: Vec<Op> = ops.iter().flat_map(|op| [op.clone(), Op::Remount]).collect();
        run(stack, &remounted)
    });
}

/// The same with every cache dropped after each operation: nothing may live only in memory.
#[test]
fn short_sequences_survive_forgetting() {
    Cases::new(64, 12, 4000).check(|stack, ops| {
        let dropped: Vec<Op> = ops.iter().flat_map(|op| [op.clone(), Op::DropCaches]).collect();
        run(stack, &dropped)
    });
}

/// The index answers in place of the lower layers, and nobody can tell.
#[test]
fn random_sequences_over_an_index_show_what_the_model_shows() {
    Cases::new(64, 40, 4000).check(|stack, ops| run_with(Below::Index, stack, ops));
}

/// The same with every cache dropped after each operation.
#[test]
fn short_sequences_over_an_index_survive_forgetting() {
    Cases::new(64, 12, 4000).check(|stack, ops| {
        let dropped: Vec<Op> = ops.iter().flat_map(|op| [op.clone(), Op::DropCaches]).collect();
        run_with(Below::Index, stack, &dropped)
    });
}
