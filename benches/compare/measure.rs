//! What one pass of a workload costs: wall time, and processor time of client and server.
//!
//! Owns the clock and the counters. Invariant: a pass is measured inside one process, the probe, between two readings that
//! surround nothing but the workload.

use std::time::Instant;

use anyhow::{Context, Result};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

/// One measured pass, as the probe reports it. Times in nanoseconds, for all operations together.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pass {
    /// The row of the report.
    pub row: String,
    /// Operations done.
    pub operations: u64,
    /// Wall time.
    pub wall_ns: f64,
    /// User and system time of the probe and its children.
    pub client_ns: f64,
    /// User and system time of the FUSE server; 0 for a filesystem in the kernel.
    pub server_ns: f64,
}

impl Pass {
    /// Wall time of one operation.
    pub fn wall_per_operation(&self) -> f64 {
        self.wall_ns / self.operations.max(1) as f64
    }

    /// Processor time of client and server for one operation.
    pub fn cpu_per_operation(&self) -> f64 {
        (self.client_ns + self.server_ns) / self.operations.max(1) as f64
    }
}

/// Collects the passes of one probe.
#[derive(Debug, Default)]
pub struct Meter {
    server: Option<i32>,
    passes: Vec<Pass>,
}

impl Meter {
    /// For a mount served by this process, if any.
    pub fn new(server: Option<i32>) -> Meter {
        Meter { server, passes: Vec::new() }
    }

    /// Measures `work`, which answers how many operations it did.
    pub fn pass(&mut self, row: &str, work: impl FnOnce() -> Result<u64>) -> Result<()> {
        let before = self.processor_ns()?;
        let start = Instant::now();
        let operations = work().with_context(|| row.to_owned())?;
        let wall_ns = start.elapsed().as_nanos() as f64;
        let after = self.processor_ns()?;
        let (client_ns, server_ns) = (after.0 - before.0, after.1 - before.1);
        self.passes.push(Pass { row: row.into(), operations, wall_ns, client_ns, server_ns });
        Ok(())
    }

    /// Replaces the wall time of the last pass by what a tool measured itself, without its own start and end.
    pub fn correct_wall(&mut self, operations: u64, wall_ns: f64) {
        if let Some(last) = self.passes.last_mut() {
            (last.operations, last.wall_ns) = (operations, wall_ns);
        }
    }

    /// What was measured.
    pub fn finish(self) -> Vec<Pass> {
        self.passes
    }

    fn processor_ns(&self) -> Result<(f64, f64)> {
        let own = usage_ns(&getrusage(UsageWho::RUSAGE_SELF)?) + usage_ns(&getrusage(UsageWho::RUSAGE_CHILDREN)?);
        let server = self.server.map(server_ns).transpose()?;
        Ok((own, server.unwrap_or(0.0)))
    }
}

fn usage_ns(usage: &Usage) -> f64 {
    let time = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e9 + time.tv_usec() as f64 * 1e3;
    time(usage.user_time()) + time(usage.system_time())
}

/// `utime` and `stime` of a process, all threads; see proc_pid_stat(5). A tick is 10 ms, so short passes round.
fn server_ns(pid: i32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let line = std::fs::read_to_string(&path).with_context(|| format!("{path}: the server is gone"))?;
    let after_name = line.rsplit_once(')').context("proc_pid_stat(5)")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: f64 = fields.get(11..13).context("proc_pid_stat(5)")?.iter().filter_map(|t| t.parse::<f64>().ok()).sum();
    let per_second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
    Ok(ticks * 1e9 / per_second as f64)
}

/// The middle of some values; NaN where there are none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[length / 2],
        length => (sorted[length / 2 - 1] + sorted[length / 2]) / 2.0,
    }
}
