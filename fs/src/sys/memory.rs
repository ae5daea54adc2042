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

#[cfg(test)]
pub use counted::allocations;

#[cfg(test)]
mod counted {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    thread_local! {
        static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    }

    /// How often this thread has allocated so far.
    pub fn allocations() -> u64 {
        ALLOCATIONS.get()
    }

    struct Counted;

    #[global_allocator]
    static ALLOCATOR: Counted = Counted;

    // SAFETY: every request is passed on unchanged; the count is a plain cell that allocates nothing.
    unsafe impl GlobalAlloc for Counted {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            ALLOCATIONS.set(ALLOCATIONS.get() + 1);
            // SAFETY: the caller's promise is the same.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
            // SAFETY: `alloc` had it from there.
            unsafe { System.dealloc(memory, layout) }
        }

        unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            ALLOCATIONS.set(ALLOCATIONS.get() + 1);
            // SAFETY: `alloc` had it from there.
            unsafe { System.realloc(memory, layout, size) }
        }
    }
}
