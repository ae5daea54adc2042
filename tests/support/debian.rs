//! A Debian image of three layers. It owns the cache in `target/images`, which outlives the tests: making it takes a minute.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::machine;

const SCRIPT: &str = include_str!("debian.sh");

/// What making the image needs and this machine lacks.
pub fn missing() -> Option<String> {
    ["umoci", "mmdebstrap", "setfattr"].iter().find_map(|name| machine::program(name)).or_else(machine::root)
}

/// The OCI layout that holds the image `app`. Processes that want it at the same time make it once.
pub fn layout() -> &'static Path {
    static LAYOUT: OnceLock<PathBuf> = OnceLock::new();
    LAYOUT.get_or_init(|| {
        let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/images");
        std::fs::create_dir_all(&cache).expect("mkdir");
        let lock = File::create(cache.join("lock")).expect("create");
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("flock");
        // Named by what makes it: a changed script makes it anew.
        let name = SCRIPT.bytes().fold(0_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let home = cache.join(format!("{name:016x}"));
        if !home.exists() {
            let making = cache.join("making");
            if making.exists() {
                std::fs::remove_dir_all(&making).expect("remove what was left half-made");
            }
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("support/debian.sh");
            machine::run("bash", &[script.as_path(), &making]);
            std::fs::rename(&making, &home).expect("rename");
        }
        home.join("layout")
    })
}
