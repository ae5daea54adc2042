//! Shared memory over a file: the only `unsafe` of the tests. Invariant: a mapping never outlives its length.

use std::fs::File;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, MmapAdvise, MsFlags, ProtFlags};

/// A `MAP_SHARED` mapping of the first `length` bytes of a file, see mmap(2).
pub struct SharedMap {
    address: NonNull<libc::c_void>,
    length: usize,
}

impl SharedMap {
    /// Maps `length` bytes, writable or not.
    pub fn new(file: &File, length: usize, writable: bool) -> std::io::Result<SharedMap> {
        let size = NonZeroUsize::new(length).ok_or(std::io::ErrorKind::InvalidInput)?;
        let protection = if writable { ProtFlags::PROT_READ | ProtFlags::PROT_WRITE } else { ProtFlags::PROT_READ };
        // SAFETY: a fresh mapping at an address the kernel picks touches no existing memory.
        let address = unsafe { nix::sys::mman::mmap(None, size, protection, MapFlags::MAP_SHARED, file, 0)? };
        Ok(SharedMap { address, length })
    }

    /// Copies the mapped bytes out; never a reference, as the file may change under it.
    pub fn bytes(&self) -> Vec<u8> {
        let start = self.address.as_ptr().cast::<u8>();
        // SAFETY: `start..start + length` is mapped as long as `self` lives; volatile, since others may write.
        (0..self.length).map(|at| unsafe { start.add(at).read_volatile() }).collect()
    }

    /// Stores `data` at `offset` through the mapping, and msync(2)s it.
    pub fn store(&self, offset: usize, data: &[u8]) -> std::io::Result<()> {
        assert!(offset + data.len() <= self.length, "store beyond the mapping");
        let start = self.address.as_ptr().cast::<u8>();
        for (at, byte) in data.iter().enumerate() {
            // SAFETY: the assertion above keeps the address inside the mapping.
            unsafe { start.add(offset + at).write_volatile(*byte) };
        }
        // SAFETY: the range is exactly the mapping.
        unsafe { nix::sys::mman::msync(self.address, self.length, MsFlags::MS_SYNC)? };
        Ok(())
    }

    /// Drops the pages of this mapping, see madvise(2) `MADV_DONTNEED`: the next read faults them in again.
    pub fn drop_pages(&self) -> std::io::Result<()> {
        // SAFETY: on a shared file mapping this loses no data.
        unsafe { nix::sys::mman::madvise(self.address, self.length, MmapAdvise::MADV_DONTNEED)? };
        Ok(())
    }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing borrows from it.
        if let Err(error) = unsafe { nix::sys::mman::munmap(self.address, self.length) } {
            eprintln!("munmap: {error}");
        }
    }
}
