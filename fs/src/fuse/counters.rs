//! What the kernel asked, counted per kind of request; always on.
//!
//! Owns the counters and the request that each thread is answering. Must not know requests. Invariants: no lock and no
//! shared cache line on the path of a request; a request is counted before it is answered, so whoever has the answer finds
//! it counted. Its system calls and its time are known, and added, after that.

use crate::sys::calls;
use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

/// One more than the largest number of an opcode that is counted. The numbers are those of include/uapi/linux/fuse.h.
pub(super) const OPCODES: usize = 64;

/// Threads beyond this many share counters.
const SHARDS: usize = 32;

/// Requests of a kind, per thread, whose time is always taken.
const TIMED_FIRST: u64 = 64;

/// After that one in so many: two looks at the clock cost 50 ns, four times the counting. A prime, so as not to fall into
/// step with what the users do.
const TIMED_EVERY: u64 = 7;

/// Buckets of a histogram per doubling of the time: a bucket is 1/8 wide, its middle at most 1/16 off.
const STEPS: usize = 8;
const STEP_BITS: u32 = STEPS.trailing_zeros();

/// Up to 2^37 ns, which is two minutes; the last bucket takes what is longer.
const BUCKETS: usize = (37 - STEP_BITS as usize + 1) * STEPS;

macro_rules! opcodes {
    ($($name:ident = $number:literal $text:literal,)*) => {
        /// A kind of request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum Opcode {
            $(#[doc = $text] $name = $number,)*
        }

        /// The name of an opcode without its `FUSE_`; `None` for one that is not counted.
        pub(super) fn opcode_name(number: usize) -> Option<&'static str> {
            match number {
                $($number => Some($text),)*
                _ => None,
            }
        }
    };
}

// RENAME2 is counted as RENAME, and BATCH_FORGET as a FORGET for each inode: `fuser` makes the same calls of them.
opcodes! {
    Lookup = 1 "LOOKUP", Forget = 2 "FORGET", Getattr = 3 "GETATTR", Setattr = 4 "SETATTR", Readlink = 5 "READLINK",
    Symlink = 6 "SYMLINK", Mknod = 8 "MKNOD", Mkdir = 9 "MKDIR", Unlink = 10 "UNLINK", Rmdir = 11 "RMDIR",
    Rename = 12 "RENAME", Link = 13 "LINK", Open = 14 "OPEN", Read = 15 "READ", Write = 16 "WRITE", Statfs = 17 "STATFS",
    Release = 18 "RELEASE", Fsync = 20 "FSYNC", Setxattr = 21 "SETXATTR", Getxattr = 22 "GETXATTR",
    Listxattr = 23 "LISTXATTR", Removexattr = 24 "REMOVEXATTR", Flush = 25 "FLUSH", Opendir = 27 "OPENDIR",
    Readdir = 28 "READDIR", Releasedir = 29 "RELEASEDIR", Fsyncdir = 30 "FSYNCDIR", Getlk = 31 "GETLK",
    Setlk = 32 "SETLK", Access = 34 "ACCESS", Create = 35 "CREATE", Bmap = 37 "BMAP", Ioctl = 39 "IOCTL",
    Poll = 40 "POLL", Fallocate = 43 "FALLOCATE", Readdirplus = 44 "READDIRPLUS",
    Lseek = 46 "LSEEK", CopyFileRange = 47 "COPY_FILE_RANGE",
}

/// The counters of one kind of request in one shard, on cache lines of their own: processors fetch them in pairs.
#[repr(align(128))]
struct Tally {
    count: AtomicU64,
    errors: AtomicU64,
    /// System calls that the answers took.
    calls: AtomicU64,
    /// Of the requests whose time was taken.
    sum_ns: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

/// Made when first used: most mounts see few kinds of requests on few threads.
type Shard = [OnceLock<Box<Tally>>; OPCODES];

/// One process serves one mount, so they belong to the process.
static TALLIES: [Shard; SHARDS] = [const { [const { OnceLock::new() }; OPCODES] }; SHARDS];

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SHARD: &'static Shard = &TALLIES[THREADS.fetch_add(1, Relaxed) % SHARDS];
    static CURRENT: Cell<Option<Current>> = const { Cell::new(None) };
}

/// The request that a thread is answering.
#[derive(Clone, Copy)]
struct Current {
    tally: &'static Tally,
    /// System calls that this thread had made before.
    calls: u64,
    started: Option<Instant>,
}

/// The counters of one kind of request, summed up. All times are of the requests that were timed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Total {
    pub(super) count: u64,
    pub(super) errors: u64,
    pub(super) calls: u64,
    pub(super) timed: u64,
    pub(super) sum_ns: u64,
    pub(super) p50_ns: u64,
    pub(super) p99_ns: u64,
}

/// Counts a request and times its answer.
pub(super) fn count(opcode: Opcode, answer: impl FnOnce()) {
    let tally = tally(opcode);
    let nth = tally.count.fetch_add(1, Relaxed);
    let timed = nth < TIMED_FIRST || nth.is_multiple_of(TIMED_EVERY);
    during(Some(Current { tally, calls: 0, started: timed.then(Instant::now) }), answer);
}

/// Notes that the request that this thread is answering fails.
pub(super) fn failed() {
    if let Some(current) = CURRENT.get() {
        current.tally.errors.fetch_add(1, Relaxed);
    }
}

/// The rest of this thread's request as a job for another thread, where its time goes on.
pub(super) fn carried(job: impl FnOnce()) -> impl FnOnce() {
    let current = CURRENT.take();
    if let Some(Current { tally, calls, .. }) = current {
        tally.calls.fetch_add(calls::so_far() - calls, Relaxed);
    }
    move || during(current, job)
}

/// Takes one request of a kind back, for those by which the counters themselves are read.
pub(super) fn discount(opcode: Opcode) {
    // A shard may fall below zero: the sum over all wraps back.
    tally(opcode).count.fetch_sub(1, Relaxed);
}

/// The sums over all threads, by number of opcode; `reset` starts again from zero, and loses nothing.
pub(super) fn totals(reset: bool) -> [Total; OPCODES] {
    let look = |counter: &AtomicU64| if reset { counter.swap(0, Relaxed) } else { counter.load(Relaxed) };
    std::array::from_fn(|opcode| {
        let (mut total, mut histogram) = (Total::default(), [0; BUCKETS]);
        for tally in TALLIES.iter().filter_map(|shard| shard[opcode].get()) {
            total.count = total.count.wrapping_add(look(&tally.count));
            total.errors += look(&tally.errors);
            total.calls += look(&tally.calls);
            total.sum_ns += look(&tally.sum_ns);
            histogram.iter_mut().zip(&tally.buckets).for_each(|(sum, bucket)| *sum += look(bucket));
        }
        total.timed = histogram.iter().sum();
        total.p50_ns = quantile(&histogram, total.timed, 50);
        total.p99_ns = quantile(&histogram, total.timed, 99);
        total
    })
}

fn tally(opcode: Opcode) -> &'static Tally {
    SHARD.with(|shard| {
        shard[opcode as usize].get_or_init(|| {
            let zero = || AtomicU64::new(0);
            Box::new(Tally {
                count: zero(),
                errors: zero(),
                calls: zero(),
                sum_ns: zero(),
                buckets: [const { AtomicU64::new(0) }; _],
            })
        })
    })
}

fn during(current: Option<Current>, work: impl FnOnce()) {
    CURRENT.set(current.map(|current| Current { calls: calls::so_far(), ..current }));
    work();
    // None: carried to another thread, which has or will have timed it.
    let Some(Current { tally, calls, started }) = CURRENT.take() else { return };
    let calls = calls::so_far() - calls;
    if calls > 0 {
        tally.calls.fetch_add(calls, Relaxed);
    }
    if let Some(started) = started {
        let ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        tally.sum_ns.fetch_add(ns, Relaxed);
        tally.buckets[bucket(ns)].fetch_add(1, Relaxed);
    }
}

/// The bucket of a time: below `STEPS` one each, then `STEPS` to each doubling.
fn bucket(ns: u64) -> usize {
    if ns < STEPS as u64 {
        return ns as usize;
    }
    let shift = ns.ilog2() - STEP_BITS;
    let step = (ns >> shift) as usize - STEPS;
    ((shift as usize + 1) * STEPS + step).min(BUCKETS - 1)
}

/// The middle of a bucket.
fn middle(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let (shift, step) = (bucket / STEPS - 1, bucket % STEPS);
    (((STEPS + step) as u64) << shift) + ((1 << shift) >> 1)
}

/// The time below which `percent` of the requests stay.
fn quantile(histogram: &[u64; BUCKETS], timed: u64, percent: u64) -> u64 {
    let rank = timed.saturating_mul(percent).div_ceil(100);
    let mut seen = 0;
    let reached = histogram.iter().position(|count| {
        seen += count;
        seen >= rank.max(1)
    });
    reached.map_or(0, middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn middle_of_its_bucket_is_near_every_time() {
        for ns in (0..37).flat_map(|bit| [1u64 << bit, (1 << bit) + (1 << bit) / 3, (2 << bit) - 1]) {
            let off = middle(bucket(ns)).abs_diff(ns);
            assert!(off <= ns / 16 + 1, "{ns} ns are told as {} ns", middle(bucket(ns)));
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_the_distribution() {
        let mut histogram = [0; BUCKETS];
        (1..=1000).for_each(|ns| histogram[bucket(ns)] += 1);
        assert!(quantile(&histogram, 1000, 50).abs_diff(500) <= 32);
        assert!(quantile(&histogram, 1000, 99).abs_diff(990) <= 64);
        assert_eq!(quantile(&[0; BUCKETS], 0, 99), 0);
    }

    /// One test for all that touches the counters of the process, as tests run side by side.
    #[test]
    fn requests_are_counted_on_every_thread_and_reset_loses_none() {
        let work = || (0..1000).for_each(|_| count(Opcode::Bmap, || (failed(), calls::count(2)).0));
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(work)).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        count(Opcode::Bmap, || {
            calls::count(1);
            std::thread::spawn(carried(|| (failed(), calls::count(2)).0)).join().unwrap();
        });
        discount(Opcode::Bmap);
        let total = totals(true)[Opcode::Bmap as usize];
        assert_eq!((total.count, total.errors, total.calls), (4000, 4001, 8003));
        assert!(total.timed > 4 * TIMED_FIRST && total.timed < total.count);
        assert_eq!(totals(false)[Opcode::Bmap as usize], Total::default());
        failed();
        assert_eq!(totals(false)[Opcode::Bmap as usize], Total::default(), "outside of a request");
    }
}
