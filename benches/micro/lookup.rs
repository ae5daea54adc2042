//! LOOKUP in process: hits and misses over 1 to 256 layers, with and without the index. What a mount adds is the round trip.

mod support;

use std::ffi::OsString;
use std::fs;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use lamina_fs::union::{Config, Union};
use support::{Layers, number};

/// Names in the directory, spread over the layers.
const NAMES: usize = 4096;

const DEPTHS: [usize; 4] = [1, 16, 64, 256];

fn layers(depth: usize) -> Layers {
    let layers = Layers::new(&std::env::temp_dir(), depth);
    for layer in 0..depth {
        fs::create_dir(layers.lower(layer).join("dir")).expect("mkdir");
    }
    for name in 0..NAMES {
        fs::write(layers.lower(name % depth).join(format!("dir/name{name}")), b"x").expect("write");
    }
    layers
}

fn lookups(criterion: &mut Criterion, kind: &str, config: impl Fn(&Layers) -> Config) {
    let mut group = criterion.benchmark_group(format!("lookup/{kind}"));
    for depth in DEPTHS {
        let layers = layers(depth);
        let union = Union::new(config(&layers)).expect("union");
        let dir = number(&union, lamina_fs::union::InodeNumber::ROOT, "dir");
        for (what, prefix) in [("hit", "name"), ("miss", "missing")] {
            let names: Vec<OsString> = (0..NAMES).map(|name| format!("{prefix}{name}").into()).collect();
            // The kernel holds what it looked up: this is the second and every later lookup of a name.
            for name in &names {
                union.lookup(dir, name).expect("lookup");
            }
            let mut next = names.iter().cycle();
            group.bench_function(BenchmarkId::new(what, depth), |bencher| {
                bencher.iter(|| next.next().map(|name| black_box(union.lookup(dir, name).expect("lookup"))));
            });
        }
    }
    group.finish();
}

fn lookup(criterion: &mut Criterion) {
    lookups(criterion, "layers", Layers::read_only);
    lookups(criterion, "index", Layers::indexed);
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    lookup(&mut criterion);
    criterion.final_summary();
}
