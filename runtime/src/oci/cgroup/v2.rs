//! Version 2: which limit is which file, and the numbers that have another scale there.

use super::Setting;
use super::v1::limit_or_max;
use crate::error::{Doing, Error, Result};
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxRdma, LinuxResources};
use std::fs;
use std::path::Path;

/// Period of version 2 where none is given, in microseconds.
const PERIOD_DEFAULT_US: u64 = 100_000;

/// Controllers that `unified` may name. Files of the core (`cgroup.*`) belong to none.
const CONTROLLERS: [&str; 8] = ["cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma"];

/// All limits, in the order in which they can be written.
pub fn settings(resources: &LinuxResources) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(memory) = resources.memory() {
        memory_settings(memory, &mut settings);
    }
    if let Some(cpu) = resources.cpu() {
        cpu_settings(cpu, &mut settings);
    }
    if let Some(pids) = resources.pids() {
        settings.push(Setting::new("pids", "pids.max", limit_or_max(pids.limit())));
    }
    if let Some(block_io) = resources.block_io() {
        io_settings(block_io, &mut settings);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        settings.push(Setting::new("hugetlb", format!("hugetlb.{}.max", limit.page_size()), limit.limit()));
    }
    for (device, limit) in resources.rdma().iter().flatten() {
        settings.push(Setting::new("rdma", "rdma.max", rdma(device, limit)));
    }
    let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
    unified.sort();
    for (file, value) in unified {
        let controller = file.split('.').next().unwrap_or_default();
        let known = CONTROLLERS.iter().find(|name| **name == controller);
        // An unknown controller is one that no directory has, which is what the error is to say.
        settings.push(Setting::new(known.copied().unwrap_or("unified"), file, value));
    }
    settings
}

/// `DEVICE hca_handle=N hca_object=N`, the same in both versions.
pub fn rdma(device: &str, limit: &LinuxRdma) -> String {
    let part = |name: &str, value: Option<u32>| value.map(|value| format!(" {name}={value}")).unwrap_or_default();
    format!("{device}{}{}", part("hca_handle", limit.hca_handles()), part("hca_object", limit.hca_objects()))
}

fn bytes_or_max(bytes: i64) -> String {
    if bytes < 0 { "max".into() } else { bytes.to_string() }
}

fn memory_settings(memory: &LinuxMemory, settings: &mut Vec<Setting>) {
    let mut add = |file: &str, value: String| settings.push(Setting::new("memory", file, value));
    // Here swap is counted by itself, there together with memory.
    match (memory.swap(), memory.limit()) {
        (Some(-1), _) => add("memory.swap.max", "max".into()),
        (Some(swap), Some(limit)) if swap >= limit && limit >= 0 => add("memory.swap.max", (swap - limit).to_string()),
        (Some(swap), _) if swap > 0 => add("memory.swap.max", swap.to_string()),
        _ => {}
    }
    if let Some(limit) = memory.limit().filter(|limit| *limit != 0) {
        add("memory.max", bytes_or_max(limit));
    }
    if let Some(reservation) = memory.reservation().filter(|bytes| *bytes != 0) {
        add("memory.low", bytes_or_max(reservation));
    }
}

/// Shares 2..262144 become a weight 1..10000, linearly.
fn weight_of(shares: u64) -> u64 {
    1 + shares.clamp(2, 262_144).saturating_sub(2) * 9999 / 262_142
}

fn cpu_settings(cpu: &LinuxCpu, settings: &mut Vec<Setting>) {
    let mut add = |controller, file: &str, value: String| settings.push(Setting::new(controller, file, value));
    if let Some(idle) = cpu.idle() {
        add("cpu", "cpu.idle", idle.to_string());
    }
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        add("cpu", "cpu.weight", weight_of(shares).to_string());
    }
    let quota = cpu.quota().filter(|us| *us != 0);
    let period = cpu.period().filter(|us| *us != 0);
    if quota.is_some() || period.is_some() {
        let quota = quota.filter(|us| *us > 0).map_or("max".to_owned(), |us| us.to_string());
        add("cpu", "cpu.max", format!("{quota} {}", period.unwrap_or(PERIOD_DEFAULT_US)));
    }
    if let Some(burst) = cpu.burst() {
        add("cpu", "cpu.max.burst", burst.to_string());
    }
    for (file, list) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            add("cpuset", file, list.clone());
        }
    }
}

fn io_settings(block_io: &LinuxBlockIo, settings: &mut Vec<Setting>) {
    let mut add = |file: &str, value: String| settings.push(Setting::new("io", file, value));
    // 10..1000 become 1..10000, linearly.
    let scaled = |weight: u16| 1 + u64::from(weight.clamp(10, 1000) - 10) * 9999 / 990;
    if let Some(weight) = block_io.weight().filter(|weight| *weight != 0) {
        add("io.weight", scaled(weight).to_string());
    }
    for device in block_io.weight_device().iter().flatten() {
        if let Some(weight) = device.weight() {
            add("io.weight", format!("{}:{} {}", device.major(), device.minor(), scaled(weight)));
        }
    }
    let throttles = [
        ("rbps", block_io.throttle_read_bps_device()),
        ("wbps", block_io.throttle_write_bps_device()),
        ("riops", block_io.throttle_read_iops_device()),
        ("wiops", block_io.throttle_write_iops_device()),
    ];
    for (word, devices) in throttles {
        for device in devices.iter().flatten() {
            add("io.max", format!("{}:{} {word}={}", device.major(), device.minor(), device.rate()));
        }
    }
}

/// Hands controllers down from the mount point to the container's directory: all where version 2 is all there is, else those
/// that are asked for, as taking one takes it from version 1. Answers which the directory has.
pub fn enable(point: &Path, path: &Path, asked: &[&str], all: bool) -> Result<Vec<String>> {
    let read = |directory: &Path, file: &str| {
        let path = directory.join(file);
        fs::read_to_string(&path).doing(|| format!("read {}", path.display()))
    };
    let mut above: Vec<&Path> = path.ancestors().skip(1).take_while(|ancestor| ancestor.starts_with(point)).collect();
    above.reverse();
    for directory in above {
        let enabled = read(directory, "cgroup.subtree_control")?;
        for name in read(directory, "cgroup.controllers")?.split_ascii_whitespace() {
            let wanted = asked.contains(&name);
            if !(all || wanted) || enabled.split_ascii_whitespace().any(|other| other == name) {
                continue;
            }
            match super::put(directory, "cgroup.subtree_control", &format!("+{name}")) {
                // Not ours to hand down, or a directory with processes of its own: what is missing is told when it is needed.
                Err(Error::Os { .. }) if !wanted => {}
                outcome => outcome?,
            }
        }
    }
    let controllers = read(path, "cgroup.controllers")?;
    Ok(controllers.split_ascii_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_change_their_scale() {
        let resources: LinuxResources = serde_json::from_str(
            r#"{"memory":{"limit":1000,"swap":3000},"cpu":{"shares":1024,"quota":-1},"blockIO":{"weight":1000},
                "unified":{"memory.high":"900"}}"#,
        )
        .unwrap();
        let written: Vec<_> = settings(&resources).into_iter().map(|one| (one.file, one.value)).collect();
        let expected = [
            ("memory.swap.max", "2000"),
            ("memory.max", "1000"),
            ("cpu.weight", "39"),
            ("cpu.max", "max 100000"),
            ("io.weight", "10000"),
            ("memory.high", "900"),
        ];
        assert_eq!(written, expected.map(|(file, value)| (file.to_owned(), value.to_owned())));
    }
}
