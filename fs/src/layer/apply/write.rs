//! The data of one file, from the archive to disk.
//!
//! Owns holes: stretches of zeros are not written. Invariant: the file has the announced size afterwards.

use super::error::ApplyError;
use crate::layer::archive::{Archive, Piece};
use crate::sys::copy;
use std::io::BufRead;
use std::os::fd::{AsFd, OwnedFd};

/// Zeros of this length and alignment become a hole: shorter ones cost more system calls than they save.
const HOLE_BYTES: usize = 32 << 10;
static ZEROS: [u8; HOLE_BYTES] = [0; HOLE_BYTES];

/// How many bytes may still be written.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// In this file.
    pub room: u64,
    /// In the layer, for the error.
    pub max: u64,
}

/// Writes the current entry's data into `file`, which is empty; answers the bytes that were written.
pub fn data<R: BufRead>(
    archive: &mut Archive<R>,
    file: &OwnedFd,
    size: u64,
    pieces: Option<&[Piece]>,
    limit: Limit,
) -> Result<u64, ApplyError> {
    let whole = [Piece { offset: 0, bytes: size }];
    let (mut written, mut end) = (0, 0);
    for piece in pieces.unwrap_or(&whole) {
        let (mut at, mut left) = (piece.offset, piece.bytes);
        while left > 0 {
            let chunk = archive.data()?;
            let chunk = &chunk[..chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
            let (step, is_hole) = run(at, chunk);
            let chunk = &chunk[..step];
            if !is_hole {
                written += step as u64;
                if written > limit.room {
                    return Err(ApplyError::TooManyBytes { max: limit.max });
                }
                copy::write_all_at(file.as_fd(), at, chunk)?;
                end = at + step as u64;
            }
            archive.consume(step);
            at += step as u64;
            left -= step as u64;
        }
    }
    if end != size {
        copy::truncate(file.as_fd(), size)?;
    }
    Ok(written)
}

/// How much of a chunk is taken at once, and whether all of that is a hole.
fn run(at: u64, chunk: &[u8]) -> (usize, bool) {
    let is_hole = |from: usize| chunk.get(from..from + HOLE_BYTES) == Some(&ZEROS);
    let behind = (at % HOLE_BYTES as u64) as usize;
    if behind == 0 && is_hole(0) {
        return (HOLE_BYTES, true);
    }
    let mut end = HOLE_BYTES - behind;
    while end < chunk.len() && !is_hole(end) {
        end += HOLE_BYTES;
    }
    (end.min(chunk.len()), false)
}
