//! The layers that all contenders share, built once and read only.
//!
//! Owns what lies in them and the check that nobody wrote to them. Must not know who mounts them. Invariant: between
//! [`Stack::build`] and [`Stack::check_unchanged`] nothing changes, or the comparison fails.

use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::corpus;

/// Directories that the small files are spread over.
pub const DIRECTORIES: usize = 64;

/// Bytes of each small file.
pub const FILE_BYTES: usize = 4096;

/// How much of everything there is.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Small files.
    pub files: usize,
    /// Bytes of the large file.
    pub large_bytes: u64,
    /// Of this many operations a workload may do one.
    pub thinning: usize,
}

impl Scale {
    /// The scale of a run.
    pub fn new(quick: bool) -> Scale {
        match quick {
            false => Scale { files: 20_000, large_bytes: 1 << 30, thinning: 1 },
            true => Scale { files: 2_000, large_bytes: 64 << 20, thinning: 10 },
        }
    }

    /// A number of operations at this scale.
    pub fn of(self, operations: usize) -> usize {
        (operations / self.thinning).max(1)
    }
}

/// Path of a small file, relative to the root of the union.
pub fn small_file(number: usize) -> String {
    format!("files/d{:02}/f{number:05}", number % DIRECTORIES)
}

/// Lower layers and what they hold together.
#[derive(Debug)]
pub struct Stack {
    /// Roots, topmost first.
    pub lowers: Vec<PathBuf>,
    checksum: u64,
}

impl Stack {
    /// Builds `count` layers below `home` that hold the small files and the Python tree, spread evenly; one layer also holds
    /// the trees for the tools and the large file, which do not depend on depth.
    pub fn build(home: &Path, count: usize, scale: Scale) -> Result<Stack> {
        let lowers: Vec<PathBuf> = (0..count).map(|layer| home.join(layer.to_string())).collect();
        let content: Vec<u8> = (0..FILE_BYTES).map(|at| b'a' + (at % 23) as u8).collect();
        for lower in &lowers {
            for directory in 0..DIRECTORIES {
                fs::create_dir_all(lower.join(format!("files/d{directory:02}")))?;
            }
        }
        for number in 0..scale.files {
            let path = lowers[number / DIRECTORIES % count].join(small_file(number));
            fs::write(&path, &content).with_context(|| path.display().to_string())?;
        }
        corpus::spread_python(&lowers)?;
        if let [only] = &lowers[..] {
            corpus::build_tools(only, scale)?;
        }
        let checksum = checksum(&lowers)?;
        Ok(Stack { lowers, checksum })
    }

    /// Reads everything, so that "backing warm" is true.
    pub fn warm(&self) -> Result<()> {
        let mut buffer = vec![0; 1 << 20];
        walk(&self.lowers, |path, metadata| {
            if metadata.is_file() {
                let mut file = fs::File::open(path)?;
                while file.read(&mut buffer)? > 0 {}
            }
            Ok(())
        })
    }

    /// Fails when a contender wrote to a layer.
    pub fn check_unchanged(&self) -> Result<()> {
        if checksum(&self.lowers)? != self.checksum {
            bail!(
                "a contender changed the {} shared lower layers: no figure of this run can be trusted",
                self.lowers.len()
            );
        }
        Ok(())
    }
}

/// Names, kinds, sizes and change times of everything: a write shows in ctime even when it puts the bytes back.
fn checksum(lowers: &[PathBuf]) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    walk(lowers, |path, metadata| {
        hasher.write(path.as_os_str().as_bytes());
        let numbers = [metadata.mode().into(), metadata.ino(), metadata.size(), metadata.mtime().unsigned_abs()];
        numbers.into_iter().for_each(|number| hasher.write_u64(number));
        hasher.write_i64(metadata.ctime());
        hasher.write_i64(metadata.ctime_nsec());
        Ok(())
    })?;
    Ok(hasher.finish())
}

fn walk(roots: &[PathBuf], mut visit: impl FnMut(&Path, &fs::Metadata) -> Result<()>) -> Result<()> {
    let mut waiting = roots.to_vec();
    while let Some(dir) = waiting.pop() {
        let mut entries: Vec<_> = fs::read_dir(&dir)?.collect::<std::io::Result<_>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let metadata = entry.metadata()?;
            visit(&entry.path(), &metadata)?;
            if metadata.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Ok(())
}
