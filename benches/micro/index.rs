//! Writing an index in process: of 1,000,000 files whose names and attributes are at hand, as an unpack has them; and of 100,000 files
//! over 16 layers that have to be listed and asked for first, as `lamina-fs index build` does.

mod support;

use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use lamina_fs::index::{Content, IndexWriter, LayerRecord, Part, Stat, Timestamp};
use lamina_fs::layer::{DirMarks, LayerId};
use lamina_fs::union::build_index;
use support::Layers;

/// Files of a directory, in both benchmarks.
const FILES: usize = 100;

const DEPTH: usize = 16;

fn stat(ino: u64, mode: u32) -> Stat {
    let time = Timestamp { seconds: 1_700_000_000, nanoseconds: 0 };
    Stat {
        dev: 0,
        ino,
        mode,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 4096,
        blocks: 8,
        blksize: 4096,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
    }
}

/// `dirs` directories of `FILES` files each.
fn written(dirs: usize, names: &[OsString]) -> IndexWriter {
    let layer = LayerId(1);
    let parts = [Part { layer, ino: 1, marks: DirMarks::default() }];
    let record = LayerRecord { uuid: [1; 16], ino: 1, ctime: Timestamp::default(), overridden: false };
    let mut writer = IndexWriter::new(vec![record]);
    let mut ino = 0;
    let mut add = |writer: &mut IndexWriter, mode, content| {
        ino += 1;
        writer.add(&stat(ino, mode), layer, Vec::new(), content).expect("it is small")
    };
    let root = add(&mut writer, 0o040_755, Content::Dir(&parts));
    let mut children = Vec::with_capacity(dirs);
    for name in &names[..dirs] {
        let dir = add(&mut writer, 0o040_755, Content::Dir(&parts));
        let files: Vec<_> =
            names[..FILES].iter().map(|name| (name, add(&mut writer, 0o100_644, Content::Leaf))).collect();
        writer.fill(dir, &files).expect("it is small");
        children.push((name, dir));
    }
    writer.fill(root, &children).expect("it is small");
    writer
}

fn known(criterion: &mut Criterion) {
    let home = tempfile::tempdir().expect("temporary directory");
    let mut group = criterion.benchmark_group("index/known");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(5));
    for entries in [10_000, 1_000_000] {
        let dirs = entries / FILES;
        let names: Vec<OsString> = (0..dirs.max(FILES)).map(|at| format!("name{at}").into()).collect();
        group.throughput(Throughput::Elements(entries as u64));
        group.bench_function(BenchmarkId::from_parameter(entries), |bencher| {
            bencher.iter(|| written(dirs, &names).finish(&home.path().join("index")).expect("write the index"));
        });
    }
    group.finish();
}

fn walked(criterion: &mut Criterion) {
    let layers = Layers::new(&std::env::temp_dir(), DEPTH);
    let dirs = 1_000;
    for dir in 0..dirs {
        let dir = layers.lower(dir % DEPTH).join(format!("d{dir}"));
        fs::create_dir(&dir).expect("mkdir");
        (0..FILES).for_each(|file| fs::write(dir.join(format!("f{file}")), b"").expect("write"));
    }
    let mut group = criterion.benchmark_group("index/walked");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(5));
    group.throughput(Throughput::Elements((dirs * FILES) as u64));
    group.bench_function(BenchmarkId::from_parameter(dirs * FILES), |bencher| {
        let (config, out) = (layers.read_only(), layers.beside("index"));
        bencher.iter(|| build_index(&config, &out, |_| ()).expect("build the index"));
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    known(&mut criterion);
    walked(&mut criterion);
    criterion.final_summary();
}
