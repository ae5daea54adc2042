//! What every container has, as docker gives it.
//!
//! Invariant: what is here is the same for all; what an image or a user chooses is not here.

use serde_json::{Value, json};
use std::path::Path;

/// Where programs are looked for when the image does not say.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What root inside may do.
pub const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// What of procfs and sysfs tells of the host.
pub const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// What of procfs changes the host.
pub const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The files that a container gets from us, in its directory and inside.
pub const FILES: [(&str, &str); 3] =
    [("hostname", "/etc/hostname"), ("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")];

/// apt gives up where it cannot become its own user for a download; this file of a container with one id tells it not to.
pub const APT_FILE: (&str, &str) = ("apt.conf", "/dev/lamina/apt.conf");

/// What stands in it. Source: apt.conf(5).
pub const APT_TEXT: &str = "APT::Sandbox::User \"root\";\n";

/// The five sets.
pub fn capabilities() -> Value {
    json!({"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES})
}

/// The kernel's own filesystems.
pub fn mounts(rootless: bool) -> Vec<Value> {
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}),
    ];
    if !rootless {
        mounts.push(json!({
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
        }));
    }
    mounts
}

/// The files of /etc that are the container's own.
pub fn files(dir: &Path, read_only: bool) -> Vec<Value> {
    let access = if read_only { "ro" } else { "rw" };
    let mount = |(file, at): &(&str, &str)| json!({"destination": at, "type": "bind", "source": dir.join(file), "options": ["rbind", "rprivate", access]});
    FILES.iter().map(mount).collect()
}

/// Names the file for apt.
pub fn apt_variable() -> String {
    format!("APT_CONFIG={}", APT_FILE.1)
}

/// On the tmpfs of /dev, where it leaves nothing in the container's layer. The source lies beside the bundle.
pub fn apt_mount() -> Value {
    json!({
        "destination": APT_FILE.1, "type": "bind", "source": Path::new("..").join(APT_FILE.0),
        "options": ["bind", "rprivate", "ro"],
    })
}
