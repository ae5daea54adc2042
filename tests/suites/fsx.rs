//! fsx 0.3.2: random reads, writes, truncations and mappings of one file, each read compared with what it must be.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::filesystem::{Filesystem, LOWER_FILE, LOWER_FILE_BYTES, Mounted};
use crate::tool;

/// One run for each.
pub const SEEDS: [u64; 5] = [1, 2, 3, 4, 5];
/// Operations of one run.
pub const OPERATIONS: u64 = 50_000;

/// The file that fsx works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Created by fsx: every operation it knows.
    New,
    /// Lies in a lower layer and is opened without O_TRUNC, so that the first write copies it up. fsx calls that its
    /// block mode; it leaves out what changes the size.
    Lower,
}

impl Subject {
    fn config(self) -> String {
        let resizing = match self {
            Subject::New => "close_open = 1\ntruncate = 10\nposix_fallocate = 2\n",
            Subject::Lower => "close_open = 0\ntruncate = 0\nposix_fallocate = 0\n",
        };
        format!(
            "flen = {LOWER_FILE_BYTES}\nblockmode = {}\n[weights]\n{resizing}\
             invalidate = 1\nmapread = 10\nmapwrite = 10\nread = 10\nwrite = 10\nfsync = 0.2\nfdatasync = 0.2\n\
             punch_hole = 2\nsendfile = 2\nposix_fadvise = 1\ncopy_file_range = 2\n",
            self == Subject::Lower
        )
    }

    fn file(self) -> &'static str {
        match self {
            Subject::New => "shared/new-file",
            Subject::Lower => LOWER_FILE,
        }
    }
}

/// Runs one seed on a new mount. `Ok(Err(_))` is a failure of the filesystem, with what fsx said.
pub fn run(filesystem: &Filesystem, subject: Subject, seed: u64) -> Result<Result<(), String>, Box<dyn Error>> {
    let mounted = Mounted::new(filesystem)?;
    let config = mounted.base().join("fsx.toml");
    fs::write(&config, subject.config())?;
    let artifacts: PathBuf = mounted.base().join("artifacts");
    fs::create_dir(&artifacts)?;
    let output = Command::new(tool::installed("fsx")?)
        .arg("-f")
        .arg(config)
        .arg("-N")
        .arg(OPERATIONS.to_string())
        .arg("-S")
        .arg(seed.to_string())
        .arg("-P")
        .arg(artifacts)
        .arg(mounted.path(subject.file()))
        .output()?;
    if output.status.success() {
        return Ok(Ok(()));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said.lines().rev().take(30).collect();
    Ok(Err(last.into_iter().rev().collect::<Vec<_>>().join("\n")))
}
