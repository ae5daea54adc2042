//! Files mapped into memory, read only.
//!
//! Invariant: a map is never writable and never shorter than it says; whoever makes one promises in turn that the file
//! behind it is replaced by rename and not changed in place.
#![expect(unsafe_code, reason = "the kernel cannot promise that a mapped file stays as it is")]

use memmap2::{Mmap, MmapMut};
use std::fs::File;
use std::io;
use std::ops::Deref;

/// Bytes of a file, or of memory that is treated alike.
#[derive(Debug)]
pub struct Map(Mmap);

impl Map {
    /// Maps a whole file. See mmap(2), `MAP_SHARED` and `PROT_READ`.
    ///
    /// Who truncates the file afterwards ends this process with SIGBUS, so it must belong to somebody who is trusted not to.
    pub fn of_file(file: &File) -> io::Result<Map> {
        // SAFETY: the bytes are only ever read, and copied out before they are believed. That nobody changes the file in place
        // is the caller's promise, as with every mapped file.
        unsafe { Mmap::map(file) }.map(Map)
    }

    /// Memory with a copy of these bytes. See mmap(2), `MAP_ANONYMOUS`.
    pub fn of_bytes(bytes: &[u8]) -> io::Result<Map> {
        let mut map = MmapMut::map_anon(bytes.len().max(1))?;
        map[..bytes.len()].copy_from_slice(bytes);
        map.make_read_only().map(Map)
    }
}

impl Deref for Map {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}
