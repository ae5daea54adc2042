//! Operations over layers: the union in process answers and shows what the model does, whatever is done in whatever order.
#![no_main]

#[path = "../../tests/union/judge.rs"]
mod judge;
#[path = "../../tests/union/listing.rs"]
mod listing;
#[path = "../../tests/union/target.rs"]
mod target;

use judge::{Below, run_with};
use libfuzzer_sys::fuzz_target;
use support::oracle::from_bytes;

/// Longer ones find the same later.
const OPS_MAX: usize = 24;

fuzz_target!(|bytes: &[u8]| {
    let Some((&how, bytes)) = bytes.split_first() else { return };
    let (stack, ops) = from_bytes(bytes, OPS_MAX);
    let below = if how & 1 == 0 { Below::Layers } else { Below::Index };
    run_with(below, &stack, &ops).unwrap_or_else(|why| panic!("{why}\n{stack:?}\n{ops:?}"));
});
