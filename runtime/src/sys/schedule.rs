//! Scheduling classes of the calling process.

use super::check;
use std::io;

/// The argument of sched_setattr(2), as linux/sched/types.h has it.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct Attributes {
    /// Bytes of this structure.
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// For `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub runtime: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub deadline: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub period: u64,
}

/// Source: sched_setattr(2).
pub fn set_scheduler(attributes: Attributes) -> io::Result<()> {
    let attributes = Attributes { size: size_of::<Attributes>() as u32, ..attributes };
    // SAFETY: the structure carries its size and lives through the call; pid 0 is the caller.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })?;
    Ok(())
}

/// `IOPRIO_WHO_PROCESS` of linux/ioprio.h.
const WHO_PROCESS: libc::c_int = 1;

/// Bits above the level in an I/O priority.
const CLASS_SHIFT: u32 = 13;

/// Sets class (1 real time, 2 best effort, 3 idle) and level. Source: ioprio_set(2).
pub fn set_io_priority(class: u32, level: u32) -> io::Result<()> {
    // SAFETY: numbers only; id 0 is the caller.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, class << CLASS_SHIFT | level) })?;
    Ok(())
}
