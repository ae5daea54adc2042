//! Stacks and sequences out of bytes that a fuzzer changes. It owns what a byte stands for. Invariant: a change of one chunk is the change of one
//! item or of one operation, so that what a fuzzer has found stays while it looks further.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::op::{self, Op};
use super::stack::{Stack, placed, settle};

/// Says whether it is an item and of which layer, or an operation; the others choose which one.
const CHUNK_BYTES: usize = 4;
const LAYERS: u8 = 3;
const ITEMS_MAX: usize = 30;

/// The lower layers that these bytes describe, and at most `ops_max` operations.
pub fn from_bytes(bytes: &[u8], ops_max: usize) -> (Stack, Vec<Op>) {
    let (mut layers, mut items, mut ops) = (vec![Vec::new(); LAYERS.into()], 0, Vec::new());
    for chunk in bytes.as_chunks::<CHUNK_BYTES>().0 {
        if chunk[0] < 0x80 && items < ITEMS_MAX {
            items += 1;
            layers[usize::from(chunk[0] % LAYERS)].push(chosen(&placed(), chunk));
        } else if chunk[0] >= 0x80 && ops.len() < ops_max {
            ops.push(chosen(&op::one(), chunk));
        }
    }
    (Stack(layers.into_iter().map(settle).collect()), ops)
}

fn chosen<T>(strategy: &impl Strategy<Value = T>, chunk: &[u8; CHUNK_BYTES]) -> T {
    let mut seed = [0; 32];
    seed[..CHUNK_BYTES].copy_from_slice(chunk);
    let config = Config { failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    strategy.new_tree(&mut runner).unwrap_or_else(|why| panic!("a strategy without filters: {why}")).current()
}
