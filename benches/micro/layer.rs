//! A layer in and out, in process: a changeset applied to a directory, and a directory written as a changeset; many small files, and
//! a few large ones. And what reading a compressed blob costs by itself.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput};
use lamina_fs::layer::{ApplyOptions, Expansion, Mountpoints, OverrideStat, apply, diff, read_blob};
use tempfile::TempDir;

/// What a layer holds: directories, files in each, and bytes of a file.
const SHAPES: [(&str, usize, usize, usize); 2] = [("small_files", 100, 100, 4096), ("large_files", 1, 8, 16 << 20)];

/// Text that compresses as files of a system do, about three times.
fn text(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let words: Vec<String> = (0..4096).map(|_| format!("{:x} ", next())).collect();
    let mut text = Vec::with_capacity(bytes + 16);
    while text.len() < bytes {
        text.extend_from_slice(words[next() % words.len()].as_bytes());
    }
    text.truncate(bytes);
    text
}

fn plant(root: &Path, (dirs, files, bytes): (usize, usize, usize)) {
    let content = text(bytes);
    for dir in 0..dirs {
        let dir = root.join(format!("d{dir}"));
        fs::create_dir(&dir).expect("mkdir");
        (0..files).for_each(|file| fs::write(dir.join(format!("f{file}")), &content).expect("write"));
    }
}

fn changeset(root: &Path) -> Vec<u8> {
    let root = File::open(root).expect("open");
    let mut bytes = Vec::new();
    diff(root.as_fd(), OverrideStat::Off, &Mountpoints::default(), &mut bytes).expect("diff");
    bytes
}

fn empty() -> TempDir {
    tempfile::tempdir().expect("temporary directory")
}

fn apply_once(bytes: &[u8]) -> Duration {
    let target = empty();
    let root = File::open(target.path()).expect("open");
    let start = Instant::now();
    apply(root.as_fd(), bytes, &ApplyOptions::default()).expect("apply");
    start.elapsed()
}

fn layer(criterion: &mut Criterion) {
    for (name, dirs, files, size) in SHAPES {
        let source = empty();
        plant(source.path(), (dirs, files, size));
        let bytes = changeset(source.path());
        let mut group = criterion.benchmark_group(format!("layer/{name}"));
        group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(5));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function("apply", |bencher| {
            bencher.iter_custom(|count| (0..count).map(|_| apply_once(&bytes)).sum())
        });
        let root = File::open(source.path()).expect("open");
        group.bench_function("diff", |bencher| {
            bencher.iter(|| diff(root.as_fd(), OverrideStat::Off, &Mountpoints::default(), io::sink()).expect("diff"))
        });
        group.finish();
    }
}

fn blob(criterion: &mut Criterion) {
    let content = text(64 << 20);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&content).expect("compress");
    let gzip = gzip.finish().expect("compress");
    let zstd = zstd::encode_all(content.as_slice(), 3).expect("compress");
    let mut group = criterion.benchmark_group("blob");
    group.sample_size(10).throughput(Throughput::Bytes(content.len() as u64));
    for (name, bytes) in [("gzip", gzip.as_slice()), ("zstd", &zstd), ("plain", &content)] {
        group.bench_function(format!("{name}/hashed_and_inflated"), |bencher| {
            bencher.iter(|| read_blob(bytes, Expansion::default(), &|_| (), |_| Ok::<_, io::Error>(())).expect("read"));
        });
    }
    group.bench_function("gzip/inflated_only", |bencher| {
        let whole =
            |bytes| io::copy(&mut flate2::bufread::MultiGzDecoder::new(bytes), &mut io::sink()).expect("inflate");
        bencher.iter_batched(|| gzip.as_slice(), whole, BatchSize::PerIteration);
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    layer(&mut criterion);
    blob(&mut criterion);
    criterion.final_summary();
}
