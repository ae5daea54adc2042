//! The first write to a lower file, in process: 4 KiB, 1 MiB and 256 MiB, plain, sparse, and on a filesystem that shares blocks.

mod support;

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use lamina_fs::union::{InodeNumber, Union};
use support::{Image, Layers, ROOT, number};

const SIZES: [(&str, u64); 3] = [("4KiB", 4 << 10), ("1MiB", 1 << 20), ("256MiB", 256 << 20)];

/// Room for the largest file several times.
const IMAGE_MIB: u64 = 2048;

/// How a lower file is made.
type Fill = fn(&File, u64);

fn plain(file: &File, bytes: u64) {
    let block = vec![b'p'; 4096];
    (0..bytes / 4096).for_each(|at| write_at(file, &block, at * 4096));
}

/// One block of data in the middle of a hole.
fn sparse(file: &File, bytes: u64) {
    file.set_len(bytes).expect("set_len");
    write_at(file, &[b's'; 4096], bytes / 8192 * 4096);
}

fn write_at(file: &File, data: &[u8], at: u64) {
    std::os::unix::fs::FileExt::write_all_at(file, data, at).expect("write");
}

/// One copy-up: a fresh union over an empty upper layer, of which only the write is timed.
fn copy_up_once(layers: &Layers) -> Duration {
    layers.empty_upper();
    let union = Union::new(layers.writable()).expect("union");
    let file = number(&union, InodeNumber::ROOT, "file");
    let start = Instant::now();
    union.open(&ROOT, file, true, false).expect("open");
    union.write(file, 0, b"x", false).expect("write");
    let taken = start.elapsed();
    union.finish();
    taken
}

fn copy_ups(criterion: &mut Criterion, kind: &str, parent: &Path, fill: Fill) {
    let mut group = criterion.benchmark_group(format!("copy_up/{kind}"));
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    for (name, bytes) in SIZES {
        let layers = Layers::new(parent, 1);
        let file = File::create(layers.lower(0).join("file")).expect("create");
        fill(&file, bytes);
        file.sync_all().expect("fsync");
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_custom(|count| (0..count).map(|_| copy_up_once(&layers)).sum());
        });
    }
    group.finish();
}

fn copy_up(criterion: &mut Criterion) {
    let here = fs::canonicalize(std::env::temp_dir()).expect("temporary directory");
    copy_ups(criterion, "plain", &here, plain);
    copy_ups(criterion, "sparse", &here, sparse);
    match Image::xfs(IMAGE_MIB) {
        Some(image) => copy_ups(criterion, "reflink", &image.root(), plain),
        None => eprintln!("copy_up/reflink: left out: it needs root and mkfs.xfs"),
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    copy_up(&mut criterion);
    criterion.final_summary();
}
