//! What a container uses, in the shape that runc's `events` prints and its readers parse.

use super::{Directory, Membership};
use crate::error::{Doing, Result};
use serde_json::{Map, Value, json};
use std::fs;
use std::io::ErrorKind;

/// Reads every controller that the container has. What a kernel does not count is left out.
pub fn read(membership: &Membership) -> Result<Value> {
    let mut data = Map::new();
    data.insert("cpu".into(), cpu(membership)?);
    data.insert("memory".into(), memory(membership)?);
    if let Some(directory) = membership.directory("pids") {
        let limit = number(directory, "pids.max")?;
        let mut pids = Map::new();
        pids.insert("current".into(), number(directory, "pids.current")?.unwrap_or(0).into());
        pids.extend(limit.map(|limit| ("limit".into(), limit.into())));
        data.insert("pids".into(), pids.into());
    }
    data.insert("blkio".into(), json!({}));
    data.insert("hugetlb".into(), json!({}));
    data.insert("intel_rdt".into(), json!({}));
    Ok(data.into())
}

fn text(directory: &Directory, file: &str) -> Result<Option<String>> {
    let path = directory.path.join(file);
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        outcome => outcome.doing(|| format!("read {}", path.display())).map(Some),
    }
}

/// `None` also for `max`.
fn number(directory: &Directory, file: &str) -> Result<Option<u64>> {
    Ok(text(directory, file)?.and_then(|text| text.trim().parse().ok()))
}

/// A file of `NAME NUMBER` lines.
fn table(directory: &Directory, file: &str) -> Result<Map<String, Value>> {
    let text = text(directory, file)?.unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    Ok(pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse::<u64>().ok()?.into()))).collect())
}

/// Nanoseconds in a tick of user and system time in version 1, at 100 ticks a second.
const TICK_NS: u64 = 10_000_000;

fn cpu(membership: &Membership) -> Result<Value> {
    let of = |map: &Map<String, Value>, name: &str| map.get(name).and_then(Value::as_u64).unwrap_or(0);
    let mut usage = json!({"total": 0, "kernel": 0, "user": 0});
    let mut throttling = Map::new();
    if let Some(directory) = membership.directory("cpuacct") {
        let split = table(directory, "cpuacct.stat")?;
        let per_cpu = text(directory, "cpuacct.usage_percpu")?.unwrap_or_default();
        let per_cpu: Vec<u64> = per_cpu.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
        usage = json!({
            "total": number(directory, "cpuacct.usage")?.unwrap_or(0),
            "percpu": per_cpu,
            "kernel": of(&split, "system") * TICK_NS,
            "user": of(&split, "user") * TICK_NS,
        });
    }
    if let Some(directory) = membership.directory("cpu").or_else(|| membership.unified()) {
        let stat = table(directory, "cpu.stat")?;
        if directory.unified && stat.contains_key("usage_usec") {
            let ns = |name: &str| of(&stat, name) * 1000;
            usage = json!({"total": ns("usage_usec"), "kernel": ns("system_usec"), "user": ns("user_usec")});
        }
        throttling.insert("periods".into(), of(&stat, "nr_periods").into());
        throttling.insert("throttledPeriods".into(), of(&stat, "nr_throttled").into());
        let time = stat.get("throttled_time").and_then(Value::as_u64);
        throttling.insert("throttledTime".into(), time.unwrap_or(of(&stat, "throttled_usec") * 1000).into());
    }
    Ok(json!({"usage": usage, "throttling": throttling}))
}

fn memory(membership: &Membership) -> Result<Value> {
    let Some(directory) = membership.directory("memory") else { return Ok(json!({})) };
    let raw = table(directory, "memory.stat")?;
    let entry = |prefix: &str| -> Result<Value> {
        let read = |suffix: &str| number(directory, &format!("{prefix}.{suffix}"));
        Ok(json!({
            "usage": read("usage_in_bytes")?.unwrap_or(0),
            "max": read("max_usage_in_bytes")?.unwrap_or(0),
            "limit": read("limit_in_bytes")?.unwrap_or(u64::MAX),
            "failcnt": read("failcnt")?.unwrap_or(0),
        }))
    };
    if !directory.unified {
        let cache = raw.get("cache").cloned().unwrap_or(0.into());
        let (usage, swap) = (entry("memory")?, entry("memory.memsw")?);
        return Ok(json!({"usage": usage, "swap": swap, "cache": cache, "raw": raw}));
    }
    let pair = |current: &str, max: &str| -> Result<Value> {
        let usage = number(directory, current)?.unwrap_or(0);
        Ok(json!({"usage": usage, "limit": number(directory, max)?.unwrap_or(u64::MAX)}))
    };
    let (usage, swap) = (pair("memory.current", "memory.max")?, pair("memory.swap.current", "memory.swap.max")?);
    Ok(json!({"usage": usage, "swap": swap, "cache": raw.get("file").cloned().unwrap_or(0.into()), "raw": raw}))
}
