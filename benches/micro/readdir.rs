//! Listing a merged directory in process: 10, 1,000 and 100,000 names over 16 layers, each time opened anew.

mod support;

use std::fs;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use lamina_fs::union::{Config, InodeNumber, Union};
use support::{Layers, number};

const DEPTH: usize = 16;

const NAMES: [usize; 3] = [10, 1_000, 100_000];

fn listings(criterion: &mut Criterion, kind: &str, layers: &[(usize, Layers)], config: impl Fn(&Layers) -> Config) {
    let mut group = criterion.benchmark_group(format!("readdir/{kind}"));
    group.sample_size(10);
    for (names, layers) in layers {
        let union = Union::new(config(layers)).expect("union");
        let dir = number(&union, InodeNumber::ROOT, "dir");
        group.throughput(Throughput::Elements(*names as u64));
        group.bench_function(BenchmarkId::from_parameter(names), |bencher| {
            bencher.iter(|| {
                let listing = union.read_dir(dir, 0).expect("read_dir");
                assert!(listing.entries.len() >= *names, "all names are listed");
                black_box(listing)
            });
        });
    }
    group.finish();
}

fn readdir(criterion: &mut Criterion) {
    let build = |names: usize| {
        let layers = Layers::new(&std::env::temp_dir(), DEPTH);
        (0..DEPTH).for_each(|layer| fs::create_dir(layers.lower(layer).join("dir")).expect("mkdir"));
        for name in 0..names {
            fs::write(layers.lower(name % DEPTH).join(format!("dir/name{name}")), b"").expect("write");
        }
        (names, layers)
    };
    let layers = NAMES.map(build);
    listings(criterion, "layers", &layers, Layers::read_only);
    listings(criterion, "index", &layers, Layers::indexed);
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    readdir(&mut criterion);
    criterion.final_summary();
}
