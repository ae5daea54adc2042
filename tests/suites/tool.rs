//! Where the third-party programs are, and whether this run may use them.

use std::env;
use std::error::Error;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The path of an installed suite: in `LAMINA_SUITES`, else in `target/suites/bin`, where `make suites-deps` puts it.
pub fn installed(name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let dir = match env::var_os("LAMINA_SUITES") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/suites/bin"),
    };
    let path = dir.join(name);
    if !path.exists() {
        return Err(format!("{} is missing: run `make suites-deps`", path.display()).into());
    }
    Ok(path)
}

/// Whether this process may mount the kernel's overlayfs and switch users; says so when it may not.
pub fn privileged() -> bool {
    let root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    if !root {
        eprintln!("skipped: mounting overlayfs and switching users needs root");
    }
    root
}
