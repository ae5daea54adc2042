//! A small Debian system as a tar: what images of the tests begin with. It owns the cache in `target/images`, which outlives the tests, as making
//! it takes most of a minute. Invariant: what is in the cache is whole.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::machine;

/// The essential packages and apt, without what only a person reads, and without the half of it that no test runs: perl beyond its base, character sets.
const WORDS: [&str; 9] = [
    "--quiet",
    "--mode=root",
    "--variant=essential",
    "--include=apt",
    "--skip=chroot/mount/sys,output/dev,output/mknod",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--customize-hook=rm -r \"$1\"/usr/share/perl \"$1\"/usr/lib/*/perl \"$1\"/usr/lib/*/gconv",
];

/// Missing: what making it needs.
pub fn missing() -> Option<String> {
    machine::root().or_else(|| machine::program("mmdebstrap"))
}

/// The tar, made if it is not there yet; none where no packages can be fetched. Processes that want it at the same time make it once.
pub fn debian() -> Option<PathBuf> {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/images");
    fs::create_dir_all(&cache).expect("mkdir");
    let lock = File::create(cache.join("lock")).expect("create");
    flock(&lock, FlockOperation::LockExclusive).expect("flock");
    // Named by what makes it: a changed recipe makes it anew.
    let recipe = WORDS.concat().bytes().fold(0_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let base = cache.join(format!("base-{recipe:016x}.tar"));
    if base.exists() {
        return Some(base);
    }
    let making = cache.join("making.tar");
    let made = machine::output("mmdebstrap", &[&WORDS[..], &["bookworm", making.to_str()?]].concat());
    if !made.status.success() {
        println!("mmdebstrap: {}", String::from_utf8_lossy(&made.stderr));
        return None;
    }
    fs::rename(&making, &base).expect("rename");
    Some(base)
}
