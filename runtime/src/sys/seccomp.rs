//! Programs of the kernel's BPF machine that decide on system calls.

use super::check;
use std::io;

/// One instruction, as linux/filter.h has it (`struct sock_filter`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// `BPF_*` class, size and mode.
    pub code: u16,
    /// How far to jump if the comparison holds.
    pub jump_true: u8,
    /// And if it does not.
    pub jump_false: u8,
    /// The constant.
    pub constant: u32,
}

/// `struct sock_fprog`.
#[repr(C)]
struct Program {
    length: u16,
    instructions: *const Instruction,
}

/// Puts the calling thread under a program, for good. `flags` are `SECCOMP_FILTER_FLAG_*`.
///
/// Source: seccomp(2), `SECCOMP_SET_MODE_FILTER`.
///
/// # Errors
/// The kernel's; E2BIG for more instructions than it can be told of.
pub fn set_filter(program: &[Instruction], flags: libc::c_ulong) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let program = Program { length, instructions: program.as_ptr() };
    // SAFETY: the kernel copies as many instructions as are told, which live through the call.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) })?;
    Ok(())
}
