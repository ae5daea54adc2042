//! Random sequences on random stacks: the union in process against the model.

use support::oracle::{Cases, Op, Stack};

use crate::judge::{Below, run_with};

/// Runs one sequence over the layers themselves.
pub fn run(stack: &Stack, ops: &[Op]) -> Result<(), String> {
    run_with(Below::Layers, stack, ops)
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
