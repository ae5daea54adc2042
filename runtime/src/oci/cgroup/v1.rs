//! Version 1: which limit is which file.

use super::Setting;
use crate::error::{Doing, Result};
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxNetwork, LinuxResources};
use std::fs;
use std::path::Path;

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
        block_io_settings(block_io, &mut settings);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let file = format!("hugetlb.{}.limit_in_bytes", limit.page_size());
        settings.push(Setting::new("hugetlb", file, limit.limit()));
    }
    if let Some(network) = resources.network() {
        network_settings(network, &mut settings);
    }
    for (device, limit) in resources.rdma().iter().flatten() {
        settings.push(Setting::new("rdma", "rdma.max", super::v2::rdma(device, limit)));
    }
    settings
}

/// A limit of processes: what is not above zero means none.
pub fn limit_or_max(limit: i64) -> String {
    if limit > 0 { limit.to_string() } else { "max".into() }
}

fn memory_settings(memory: &LinuxMemory, settings: &mut Vec<Setting>) {
    let mut add = |file: &str, value: Option<String>| {
        settings.extend(value.map(|value| Setting::new("memory", file, value)));
    };
    add("memory.limit_in_bytes", memory.limit().map(|bytes| bytes.to_string()));
    add("memory.memsw.limit_in_bytes", memory.swap().map(|bytes| bytes.to_string()));
    add("memory.soft_limit_in_bytes", memory.reservation().map(|bytes| bytes.to_string()));
    add("memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp().map(|bytes| bytes.to_string()));
    add("memory.swappiness", memory.swappiness().map(|share| share.to_string()));
    add("memory.oom_control", memory.disable_oom_killer().filter(|disable| *disable).map(|_| "1".into()));
}

fn cpu_settings(cpu: &LinuxCpu, settings: &mut Vec<Setting>) {
    let mut add = |controller, file: &str, value: Option<String>| {
        settings.extend(value.map(|value| Setting::new(controller, file, value)));
    };
    add("cpu", "cpu.shares", cpu.shares().filter(|shares| *shares != 0).map(|shares| shares.to_string()));
    // Real time: the period bounds the run time, so it comes first.
    add("cpu", "cpu.rt_period_us", cpu.realtime_period().filter(|us| *us != 0).map(|us| us.to_string()));
    add("cpu", "cpu.rt_runtime_us", cpu.realtime_runtime().filter(|us| *us != 0).map(|us| us.to_string()));
    add("cpu", "cpu.cfs_period_us", cpu.period().filter(|us| *us != 0).map(|us| us.to_string()));
    add("cpu", "cpu.cfs_quota_us", cpu.quota().filter(|us| *us != 0).map(|us| us.to_string()));
    add("cpu", "cpu.cfs_burst_us", cpu.burst().map(|us| us.to_string()));
    add("cpu", "cpu.idle", cpu.idle().map(|idle| idle.to_string()));
    add("cpuset", "cpuset.cpus", cpu.cpus().clone().filter(|list| !list.is_empty()));
    add("cpuset", "cpuset.mems", cpu.mems().clone().filter(|list| !list.is_empty()));
}

fn block_io_settings(block_io: &LinuxBlockIo, settings: &mut Vec<Setting>) {
    let mut add = |file: &str, value: String| settings.push(Setting::new("blkio", file, value));
    if let Some(weight) = block_io.weight().filter(|weight| *weight != 0) {
        add("blkio.weight", weight.to_string());
    }
    if let Some(weight) = block_io.leaf_weight().filter(|weight| *weight != 0) {
        add("blkio.leaf_weight", weight.to_string());
    }
    for device in block_io.weight_device().iter().flatten() {
        for (file, weight) in
            [("blkio.weight_device", device.weight()), ("blkio.leaf_weight_device", device.leaf_weight())]
        {
            if let Some(weight) = weight {
                add(file, format!("{}:{} {weight}", device.major(), device.minor()));
            }
        }
    }
    let throttles = [
        ("blkio.throttle.read_bps_device", block_io.throttle_read_bps_device()),
        ("blkio.throttle.write_bps_device", block_io.throttle_write_bps_device()),
        ("blkio.throttle.read_iops_device", block_io.throttle_read_iops_device()),
        ("blkio.throttle.write_iops_device", block_io.throttle_write_iops_device()),
    ];
    for (file, devices) in throttles {
        for device in devices.iter().flatten() {
            add(file, format!("{}:{} {}", device.major(), device.minor(), device.rate()));
        }
    }
}

fn network_settings(network: &LinuxNetwork, settings: &mut Vec<Setting>) {
    if let Some(class) = network.class_id() {
        settings.push(Setting::new("net_cls", "net_cls.classid", class));
    }
    for priority in network.priorities().iter().flatten() {
        let value = format!("{} {}", priority.name(), priority.priority());
        settings.push(Setting::new("net_prio", "net_prio.ifpriomap", value));
    }
}

/// A new cpuset is empty, and takes no process before it has processors and memory nodes: it gets those of the one above.
pub fn inherit_cpuset(point: &Path, path: &Path) -> Result<()> {
    let below: Vec<&Path> = path.ancestors().take_while(|ancestor| *ancestor != point).collect();
    for directory in below.into_iter().rev() {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let read = |directory: &Path| {
                let path = directory.join(file);
                fs::read_to_string(&path).doing(|| format!("read {}", path.display()))
            };
            if read(directory)?.trim().is_empty() {
                let above = read(directory.parent().unwrap_or(point))?;
                super::put(directory, file, above.trim())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_files_of_their_controllers() {
        let resources: LinuxResources = serde_json::from_str(
            r#"{"memory":{"limit":1048576},"pids":{"limit":7},"cpu":{"quota":5000,"period":10000,"shares":0}}"#,
        )
        .unwrap();
        let written: Vec<_> = settings(&resources).into_iter().map(|one| (one.file, one.value)).collect();
        let expected = [
            ("memory.limit_in_bytes", "1048576"),
            ("cpu.cfs_period_us", "10000"),
            ("cpu.cfs_quota_us", "5000"),
            ("pids.max", "7"),
        ];
        assert_eq!(written, expected.map(|(file, value)| (file.to_owned(), value.to_owned())));
    }
}
