//! What Lamina promises: ratios to the kernel's overlayfs, and to the rivals. Owns the figures of the targets table.

use super::Results;
use crate::contender::{REFERENCE, REFERENCE_VOLATILE};

/// At most this ratio at 1, 16 and 64 layers.
struct Target {
    row: &'static str,
    reference: &'static str,
    at_most: [Option<f64>; 3],
    /// Times faster than fuse-overlayfs, at the least.
    lead: f64,
}

const fn target(row: &'static str, at_most: [f64; 3], lead: f64) -> Target {
    let [one, sixteen, many] = at_most;
    Target { row, reference: REFERENCE, at_most: [Some(one), Some(sixteen), Some(many)], lead }
}

const fn volatile(row: &'static str, at_most: [f64; 3]) -> Target {
    Target { reference: REFERENCE_VOLATILE, ..target(row, at_most, 1.0) }
}

const DEPTHS: [usize; 3] = [1, 16, 64];

const TARGETS: &[Target] = &[
    target("stat cold", [2.5, 1.1, 0.5], 3.0),
    target("stat warm", [0.9, 0.9, 0.9], 1.0),
    target("miss cold", [3.5, 0.8, 0.3], 3.0),
    target("find cold", [1.2, 0.6, 0.25], 3.0),
    target("open+read+close cold", [4.0, 2.0, 1.0], 1.0),
    target("open+read+close warm", [0.9, 0.9, 0.9], 3.0),
    target("create+write+close", [2.0, 1.0, 1.0], 3.0),
    target("rename", [3.0, 1.5, 0.8], 1.0),
    volatile("chmod", [1.5, 1.2, 1.2]),
    volatile("append", [1.5, 1.2, 1.2]),
    volatile("unlink", [1.5, 1.2, 1.0]),
    target("100 byte writes", [1.5, 1.5, 1.5], 1.0),
    target("python start cold", [2.0, 1.5, 1.0], 1.0),
    target("python start warm", [1.1, 1.1, 1.1], 1.0),
    Target { row: "sequential read cold", reference: REFERENCE, at_most: [Some(1.5), None, None], lead: 1.0 },
    Target { row: "sequential read warm", reference: REFERENCE, at_most: [Some(1.1), None, None], lead: 1.0 },
];

/// One target as one of our contenders did it.
pub struct Verdict {
    pub row: &'static str,
    pub layers: usize,
    pub contender: String,
    /// What it is a ratio to, and the most that it may be.
    pub reference: &'static str,
    pub at_most: f64,
    pub ratio: f64,
}

impl Verdict {
    /// Whether the target is met.
    pub fn met(&self) -> bool {
        self.ratio <= self.at_most
    }
}

/// Every target that this run measured: against the kernel, then against each fuse-overlayfs.
pub fn verdicts(results: &Results) -> Vec<Verdict> {
    let ours = || results.contenders.iter().map(|(name, _)| name).filter(|name| name.starts_with("lamina"));
    let mut found = Vec::new();
    for target in TARGETS {
        for (layers, at_most) in DEPTHS.into_iter().zip(target.at_most) {
            let kernel = at_most.map(|at_most| (target.reference, at_most));
            let rivals = ["fuse-overlayfs-1", "fuse-overlayfs-2"].map(|rival| Some((rival, 1.0 / target.lead)));
            for (reference, at_most) in std::iter::once(kernel).chain(rivals).flatten() {
                for contender in ours() {
                    if let Some(ratio) = results.ratio(target.row, layers, contender, reference) {
                        let contender = contender.clone();
                        found.push(Verdict { row: target.row, layers, contender, reference, at_most, ratio });
                    }
                }
            }
        }
    }
    found
}
