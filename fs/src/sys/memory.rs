//! Giving freed memory back to the machine.
#![expect(unsafe_code, reason = "no crate wraps malloc_trim")]

/// Returns the allocator's free pages to the kernel. See malloc_trim(3).
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointer and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
