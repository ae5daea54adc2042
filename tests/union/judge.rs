//! One sequence on a union in process, beside the model; the fuzzers use it too. It owns what must hold after each sequence besides the tree:
//! lowers untouched, nothing left in work.

use support::oracle::{Formats, Model, Op, Stack, follow};
use support::{Entry, Layers};

use crate::target::{InProcess, privileged};

/// What answers for the lower layers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Below {
    /// The layers themselves.
    Layers,
    /// An index of them.
    Index,
}

/// Runs one sequence, from fresh layers to the last check.
pub fn run_with(below: Below, stack: &Stack, ops: &[Op]) -> Result<(), String> {
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
