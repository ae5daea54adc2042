//! One sequence on one target beside the model, and the loop over many. It owns the comparison. Invariant: what differs is reported with the
//! operation at which it first showed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use super::model::{Expected, Model, Refusal};
use super::op::{self, Op};
use super::stack::{self, Stack};
use super::{Errno, Reply, Target};
use crate::machine::number_from_env;
use crate::tree::{Tree, View};

/// A whole tree is compared after so many operations.
const OPS_PER_COMPARISON: usize = 6;

/// Runs `ops` on both, and answers the final tree (after a remount), or the first difference.
pub fn follow(target: &mut impl Target, model: &mut Model, ops: &[Op]) -> Result<Tree, String> {
    let mut numbers = Numbers::default();
    numbers.check(&target.tree(), model).map_err(|why| format!("before the first operation:\n  {why}"))?;
    for (at, op) in ops.iter().enumerate() {
        let context = |why: String| format!("at operation {at}, {op:?}:\n  {why}");
        step(target, model, op).map_err(context)?;
        if matches!(op, Op::Remount) || at % OPS_PER_COMPARISON == 0 {
            numbers.check(&target.tree(), model).map_err(context)?;
        }
    }
    numbers.check(&target.tree(), model).map_err(|why| format!("after the last operation:\n  {why}"))?;
    model.close_all();
    target.remount();
    let tree = target.tree();
    numbers.check(&tree, model).map_err(|why| format!("after the last remount:\n  {why}"))?;
    Ok(tree)
}

fn step(target: &mut impl Target, model: &mut Model, op: &Op) -> Result<(), String> {
    match op {
        Op::Remount => {
            model.close_all();
            target.remount();
            return Ok(());
        }
        Op::DropCaches => {
            target.drop_caches();
            return Ok(());
        }
        _ => {}
    }
    let expected = model.apply(op);
    if expected == Err(Refusal::Skip) {
        return Ok(());
    }
    let answer = target.apply(op);
    if fits(&expected, &answer) {
        Ok(())
    } else {
        Err(format!("expected {}, got {}", brief(&expected), brief(&answer)))
    }
}

fn fits(expected: &Expected, answer: &Result<Reply, Errno>) -> bool {
    match (expected, answer) {
        (
            Ok(Reply::Stat { size, mode, nlink }),
            Ok(Reply::Stat { size: their_size, mode: their_mode, nlink: their_nlink }),
        ) => (size, mode) == (their_size, their_mode) && (nlink.is_none() || nlink == their_nlink),
        (Ok(expected), Ok(answer)) => expected == answer,
        (Err(Refusal::Errno(any)), Err(errno)) => any.contains(errno),
        _ => false,
    }
}

fn brief(answer: &impl std::fmt::Debug) -> String {
    let mut text = format!("{answer:?}");
    text.truncate(400);
    text
}

/// Inode numbers seen so far, by the identity of the model.
#[derive(Default)]
struct Numbers(BTreeMap<u64, u64>);

impl Numbers {
    fn check(&mut self, shown: &Tree, model: &Model) -> Result<(), String> {
        let expected = model.tree();
        let mut lines = expected.differences(shown, View::ALL);
        for (path, node) in &shown.0 {
            let Some(theirs) = expected.0.get(path) else { continue };
            let number = *self.0.entry(theirs.identity).or_insert(node.identity);
            if number != node.identity {
                lines.push(format!("{path}: st_ino was {number}, is {}", node.identity));
            }
        }
        if lines.is_empty() { Ok(()) } else { Err(format!("left is the model:\n  {}", lines.join("\n  "))) }
    }
}

/// How many sequences are run, how long they are, and from which seed.
pub struct Cases {
    count: u32,
    length_max: usize,
    shrinks_max: u32,
}

impl Cases {
    /// `count` sequences unless LAMINA_ORACLE_CASES says otherwise; the seed is fixed unless LAMINA_ORACLE_SEED is given.
    pub fn new(count: u32, length_max: usize, shrinks_max: u32) -> Cases {
        let count = number_from_env("LAMINA_ORACLE_CASES", count.into());
        Cases { count: u32::try_from(count).unwrap_or(u32::MAX), length_max, shrinks_max }
    }

    /// Generates stacks and sequences for `run`, prints how many were run, and panics with the shortest one that fails.
    pub fn check(&self, run: impl Fn(&Stack, &[Op]) -> Result<(), String>) {
        let mut seed = [0_u8; 32];
        seed[..8].copy_from_slice(&number_from_env("LAMINA_ORACLE_SEED", 0x1a_417a).to_le_bytes());
        let config = Config {
            cases: self.count,
            max_shrink_iters: self.shrinks_max,
            failure_persistence: None,
            ..Config::default()
        };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
        let done = AtomicU32::new(0);
        let outcome = runner.run(&(stack::stack(), op::sequence(self.length_max)), |(stack, ops)| {
            done.fetch_add(1, Ordering::Relaxed);
            run(&stack, &ops).map_err(TestCaseError::fail)
        });
        match outcome {
            Ok(()) => println!("ORACLE: {} sequences run, none differs", done.into_inner()),
            Err(TestError::Fail(why, (stack, ops))) => {
                let line = |item: &dyn std::fmt::Debug| format!("\n    {item:?},");
                let layers: String = stack.0.iter().map(|layer| line(layer)).collect();
                let ops: String = ops.iter().map(|op| line(op)).collect();
                panic!("{why}\nstack, topmost first = [{layers}\n]\nops = [{ops}\n]")
            }
            Err(TestError::Abort(why)) => panic!("no more sequences: {why}"),
        }
    }
}
