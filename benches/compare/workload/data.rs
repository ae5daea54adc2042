//! File contents: open, read, create, append, small writes, and the large file.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Result, bail};

use super::Job;
use super::metadata::small_files;
use crate::layers::{DIRECTORIES, FILE_BYTES};
use crate::measure::Meter;

/// Files that are opened or created by one pass.
const OPENED: usize = 5000;
const CREATED: usize = 2000;

/// Files that one pass copies up: each may cost an fsync(2).
const APPENDED: usize = 1000;

/// Small writes of one pass, and their size.
const WRITES: usize = 100_000;
const WRITE_BYTES: usize = 100;

const MIB: usize = 1 << 20;

pub fn open(meter: &mut Meter, job: &Job) -> Result<()> {
    let paths = small_files(job, job.scale.of(OPENED));
    let mut buffer = vec![0; FILE_BYTES];
    for row in ["open+read+close cold", "open+read+close warm"] {
        meter.pass(row, || {
            for path in &paths {
                File::open(path)?.read_exact(&mut buffer)?;
            }
            Ok(paths.len() as u64)
        })?;
    }
    Ok(())
}

pub fn create(meter: &mut Meter, job: &Job) -> Result<()> {
    let name = |number: usize| job.mount.join(format!("files/d{:02}/new{number}", number % DIRECTORIES));
    let paths: Vec<PathBuf> = (0..job.scale.of(CREATED)).map(name).collect();
    let content = vec![b'n'; FILE_BYTES];
    meter.pass("create+write+close", || {
        for path in &paths {
            OpenOptions::new().write(true).create_new(true).open(path)?.write_all(&content)?;
        }
        Ok(paths.len() as u64)
    })
}

pub fn append(meter: &mut Meter, job: &Job) -> Result<()> {
    let paths = small_files(job, job.scale.of(APPENDED));
    meter.pass("append", || {
        for path in &paths {
            OpenOptions::new().append(true).open(path)?.write_all(&[b'a'; WRITE_BYTES])?;
        }
        Ok(paths.len() as u64)
    })?;
    let bytes = fs::metadata(&paths[0])?.len();
    match bytes == (FILE_BYTES + WRITE_BYTES) as u64 {
        true => Ok(()),
        false => bail!("{} has {bytes} bytes after an append", paths[0].display()),
    }
}

pub fn writes(meter: &mut Meter, job: &Job) -> Result<()> {
    let (path, count) = (job.mount.join("written"), job.scale.of(WRITES));
    meter.pass("100 byte writes", || {
        let mut file = File::create(&path)?;
        for _ in 0..count {
            file.write_all(&[b'w'; WRITE_BYTES])?;
        }
        drop(file);
        Ok(count as u64)
    })?;
    match fs::metadata(&path)?.len() == (count * WRITE_BYTES) as u64 {
        true => Ok(()),
        false => bail!("{} is too short", path.display()),
    }
}

pub fn read_large(meter: &mut Meter, job: &Job) -> Result<()> {
    let path = job.mount.join("large");
    let mut buffer = vec![0; MIB];
    for row in ["sequential read cold", "sequential read warm"] {
        meter.pass(row, || {
            let mut file = File::open(&path)?;
            let mut bytes = 0;
            loop {
                match file.read(&mut buffer)? {
                    0 => break,
                    count => bytes += count,
                }
            }
            match bytes as u64 == job.scale.large_bytes {
                true => Ok((bytes / MIB) as u64),
                false => bail!("{bytes} bytes instead of {}", job.scale.large_bytes),
            }
        })?;
    }
    Ok(())
}

pub fn first_write(meter: &mut Meter, job: &Job) -> Result<()> {
    meter.pass("first write to the large file", || {
        let file = OpenOptions::new().write(true).open(job.mount.join("large"))?;
        file.write_all_at(&[b'1'; FILE_BYTES], job.scale.large_bytes / 2)?;
        Ok(1)
    })
}
