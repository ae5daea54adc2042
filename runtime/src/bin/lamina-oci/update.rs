//! `lamina-oci update`.

use clap::Args;
use lamina_runtime::error::{Doing, Error, Result};
use lamina_runtime::oci::state::Root;
use lamina_runtime::oci::update;
use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value, json};
use std::io::Read;

/// Change the limits of a container
#[derive(Debug, Args)]
pub struct Update {
    /// File with limits as in config.json, or - for standard input; other flags are ignored then
    #[arg(short, long, value_name = "FILE")]
    resources: Option<String>,
    /// Weight of block I/O, 10 to 1000
    #[arg(long)]
    blkio_weight: Option<u16>,
    /// Microseconds of processor time in a period
    #[arg(long, allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// Microseconds of a period
    #[arg(long)]
    cpu_period: Option<u64>,
    /// Microseconds that unused quota may be saved up
    #[arg(long)]
    cpu_burst: Option<u64>,
    /// Weight of processor time
    #[arg(long, alias = "cpu-share")]
    cpu_shares: Option<u64>,
    /// Microseconds of real-time processor time in a period
    #[arg(long, allow_negative_numbers = true)]
    cpu_rt_runtime: Option<i64>,
    /// Microseconds of a real-time period
    #[arg(long)]
    cpu_rt_period: Option<u64>,
    /// Whether it only gets what nobody else wants, 0 or 1
    #[arg(long)]
    cpu_idle: Option<i64>,
    /// Processors
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// Bytes of memory
    #[arg(short, long, allow_negative_numbers = true)]
    memory: Option<i64>,
    /// Bytes of memory that it may count on
    #[arg(long, allow_negative_numbers = true)]
    memory_reservation: Option<i64>,
    /// Bytes of memory and swap together
    #[arg(long, allow_negative_numbers = true)]
    memory_swap: Option<i64>,
    /// Number of processes
    #[arg(long, allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Name of the container
    id: String,
}

impl Update {
    pub fn run(self, root: &Root) -> Result<()> {
        let place = || "the limits of `update`".to_owned();
        let document = match self.resources.as_deref() {
            Some(path) => read(path)?,
            None => self.document(),
        };
        let resources: LinuxResources =
            serde_json::from_value(document).map_err(|source| Error::Json { place: place(), source })?;
        update::update(root, &self.id, &resources)
    }

    /// The flags in the words of config.json.
    fn document(&self) -> Value {
        let given = |pairs: &[(&str, Value)]| -> Option<Value> {
            let pairs = pairs.iter().filter(|(_, value)| !value.is_null());
            let map: Map<String, Value> = pairs.map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            (!map.is_empty()).then(|| map.into())
        };
        let cpu = given(&[
            ("quota", json!(self.cpu_quota)),
            ("period", json!(self.cpu_period)),
            ("burst", json!(self.cpu_burst)),
            ("shares", json!(self.cpu_shares)),
            ("realtimeRuntime", json!(self.cpu_rt_runtime)),
            ("realtimePeriod", json!(self.cpu_rt_period)),
            ("idle", json!(self.cpu_idle)),
            ("cpus", json!(self.cpuset_cpus)),
            ("mems", json!(self.cpuset_mems)),
        ]);
        let memory = given(&[
            ("limit", json!(self.memory)),
            ("reservation", json!(self.memory_reservation)),
            ("swap", json!(self.memory_swap)),
        ]);
        let pids = given(&[("limit", json!(self.pids_limit))]);
        let block_io = given(&[("weight", json!(self.blkio_weight))]);
        let parts = [("cpu", cpu), ("memory", memory), ("pids", pids), ("blockIO", block_io)];
        let parts = parts.into_iter().filter_map(|(name, part)| Some((name.to_owned(), part?)));
        Value::Object(parts.collect())
    }
}

fn read(path: &str) -> Result<Value> {
    let bytes = if path == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).doing(|| "read standard input".into())?;
        bytes
    } else {
        std::fs::read(path).doing(|| format!("read {path}"))?
    };
    serde_json::from_slice(&bytes).map_err(|source| Error::Json { place: path.into(), source })
}
