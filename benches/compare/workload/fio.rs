//! fio over the large file. Owns its command lines; the time is fio's own, without its start.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Job;
use crate::measure::Meter;

/// What the writing jobs write, and the random reading ones read.
const BYTES: usize = 256 << 20;

/// One call of fio. It never drops caches by itself: for a rival that would empty the layers' cache too.
fn job(meter: &mut Meter, job: &Job, row: &str, kind: &str, words: &[&str]) -> Result<()> {
    let mut measured = (0, 0.0);
    meter.pass(row, || {
        let mut command = Command::new("fio");
        command.args([
            "--name=compare",
            "--output-format=json",
            "--invalidate=0",
            "--randrepeat=1",
            "--fallocate=none",
        ]);
        command.args(words).current_dir(&job.mount).stdin(Stdio::null());
        let output = command.output().context("fio")?;
        if !output.status.success() {
            bail!("fio: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        measured = figures(&output.stdout, kind)?;
        Ok(measured.0)
    })?;
    meter.correct_wall(measured.0, measured.1);
    Ok(())
}

/// Operations and nanoseconds.
fn figures(output: &[u8], kind: &str) -> Result<(u64, f64)> {
    let start = output.iter().position(|byte| *byte == b'{').context("fio printed no JSON")?;
    let report: serde_json::Value = serde_json::from_slice(&output[start..]).context("fio's report")?;
    let part = &report["jobs"][0][kind];
    let operations = part["total_ios"].as_u64().context("fio: total_ios")?;
    let milliseconds = part["runtime"].as_f64().context("fio: runtime")?;
    Ok((operations, milliseconds * 1e6))
}

fn twice(meter: &mut Meter, work: &Job, name: &str, words: &[&str]) -> Result<()> {
    job(meter, work, &format!("{name} cold"), "read", words)?;
    job(meter, work, &format!("{name} warm"), "read", words)
}

pub fn read(meter: &mut Meter, job: &Job) -> Result<()> {
    twice(meter, job, "fio sequential read", &["--filename=large", "--readonly", "--rw=read", "--bs=128k"])
}

pub fn random_read(meter: &mut Meter, job: &Job) -> Result<()> {
    let io = format!("--io_size={}", job.scale.of(BYTES / 4));
    twice(meter, job, "fio random read", &["--filename=large", "--readonly", "--rw=randread", "--bs=4k", &io])
}

pub fn mapped_read(meter: &mut Meter, job: &Job) -> Result<()> {
    let io = format!("--io_size={}", job.scale.of(BYTES / 4));
    let words = ["--filename=large", "--readonly", "--rw=randread", "--bs=4k", "--ioengine=mmap", &io];
    twice(meter, job, "fio mapped read", &words)
}

pub fn write(meter: &mut Meter, work: &Job) -> Result<()> {
    let size = format!("--size={}", work.scale.of(BYTES) >> 17 << 17);
    let words = ["--filename=new", "--rw=write", "--bs=128k", "--end_fsync=1", &size];
    job(meter, work, "fio sequential write", "write", &words)
}

pub fn random_write(meter: &mut Meter, work: &Job) -> Result<()> {
    let size = format!("--size={}", work.scale.of(BYTES / 4) >> 12 << 12);
    let words = ["--filename=new", "--rw=randwrite", "--bs=4k", "--end_fsync=1", &size];
    job(meter, work, "fio random write", "write", &words)
}
