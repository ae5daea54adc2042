//! Layers in every format of marks: their union, through one scan and through an index, shows what the model says, and shows it again after a
//! remount.
#![no_main]

#[path = "../../tests/union/judge.rs"]
mod judge;
#[path = "../../tests/union/listing.rs"]
mod listing;
#[path = "../../tests/union/target.rs"]
mod target;

use judge::{Below, run_with};
use libfuzzer_sys::fuzz_target;
use support::oracle::{Op, from_bytes};

fuzz_target!(|bytes: &[u8]| {
    let (stack, _) = from_bytes(bytes, 0);
    for below in [Below::Layers, Below::Index] {
        run_with(below, &stack, &[Op::DropCaches]).unwrap_or_else(|why| panic!("{why}\n{stack:?}"));
    }
});
