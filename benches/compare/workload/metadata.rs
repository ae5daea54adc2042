//! Names and attributes: lookups, listings, rename, and changes that need no data.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::Job;
use crate::layers::{DIRECTORIES, small_file};
use crate::measure::Meter;

/// Files that one pass copies up or hides: each may cost an fsync(2).
const CHANGED: usize = 1000;

/// Files that one pass renames.
const RENAMED: usize = 2000;

/// Paths of the first small files.
pub fn small_files(job: &Job, count: usize) -> Vec<PathBuf> {
    (0..count.min(job.scale.files)).map(|number| job.mount.join(small_file(number))).collect()
}

fn stat_all(paths: &[PathBuf]) -> Result<u64> {
    for path in paths {
        fs::symlink_metadata(path).with_context(|| path.display().to_string())?;
    }
    Ok(paths.len() as u64)
}

pub fn stat(meter: &mut Meter, job: &Job) -> Result<()> {
    let paths = small_files(job, job.scale.files);
    meter.pass("stat cold", || stat_all(&paths))?;
    meter.pass("stat warm", || stat_all(&paths))
}

pub fn miss(meter: &mut Meter, job: &Job) -> Result<()> {
    let name = |number: usize| job.mount.join(format!("files/d{:02}/missing{number}", number % DIRECTORIES));
    let paths: Vec<PathBuf> = (0..job.scale.files).map(name).collect();
    let ask = || {
        for path in &paths {
            match fs::symlink_metadata(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
                Ok(_) => bail!("{} exists", path.display()),
            }
        }
        Ok(paths.len() as u64)
    };
    meter.pass("miss cold", ask)?;
    meter.pass("miss warm", ask)
}

pub fn find(meter: &mut Meter, job: &Job) -> Result<()> {
    let top = job.mount.join("files");
    let wanted = (job.scale.files + DIRECTORIES) as u64;
    for row in ["find cold", "find warm"] {
        meter.pass(row, || {
            let found = list_and_stat(&top)?;
            if found != wanted {
                bail!("{found} entries instead of {wanted}");
            }
            Ok(found)
        })?;
    }
    Ok(())
}

fn list_and_stat(top: &Path) -> Result<u64> {
    let (mut waiting, mut found) = (vec![top.to_path_buf()], 0);
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if fs::symlink_metadata(&path)?.is_dir() {
                waiting.push(path);
            }
            found += 1;
        }
    }
    Ok(found)
}

pub fn rename(meter: &mut Meter, job: &Job) -> Result<()> {
    let name = |number: usize, kind: &str| job.mount.join(format!("files/d{:02}/{kind}{number}", number % DIRECTORIES));
    let count = job.scale.of(RENAMED);
    let pairs: Vec<_> = (0..count).map(|number| (name(number, "before"), name(number, "after"))).collect();
    for (from, _) in &pairs {
        fs::write(from, b"x")?;
    }
    meter.pass("rename", || {
        for (from, to) in &pairs {
            fs::rename(from, to)?;
        }
        Ok(pairs.len() as u64)
    })
}

pub fn chmod(meter: &mut Meter, job: &Job) -> Result<()> {
    let paths = small_files(job, job.scale.of(CHANGED));
    meter.pass("chmod", || {
        for path in &paths {
            fs::set_permissions(path, Permissions::from_mode(0o600))?;
        }
        Ok(paths.len() as u64)
    })
}

pub fn unlink(meter: &mut Meter, job: &Job) -> Result<()> {
    let paths = small_files(job, job.scale.of(CHANGED));
    meter.pass("unlink", || {
        for path in &paths {
            fs::remove_file(path)?;
        }
        Ok(paths.len() as u64)
    })
}
