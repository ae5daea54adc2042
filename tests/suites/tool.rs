//! Where the third-party programs are.

use std::error::Error;
use std::path::PathBuf;

use support::lamina::suites_dir;

/// The path of an installed suite.
pub fn installed(name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let path = suites_dir().join(name);
    if !path.exists() {
        return Err(format!("{} is missing: run `make suites-deps`", path.display()).into());
    }
    Ok(path)
}
