//! Where the data of a sparse file lies: the old GNU format, and the three PAX ones (GNU tar's manual, "Sparse Formats").
//!
//! Invariant: after `check` the pieces ascend, do not touch what they must not, and are as long together as the data.

use super::fault::Fault;
use super::number;
use super::{ArchiveError, PIECES_MAX};

/// A stretch of data between holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
}

/// Descriptors of one header of the old format; an empty one ends them.
pub fn read_gnu(descriptors: &[tar::GnuSparseHeader], pieces: &mut Vec<Piece>) -> Result<(), ArchiveError> {
    for descriptor in descriptors.iter().take_while(|descriptor| descriptor.offset[0] != 0) {
        if pieces.len() == PIECES_MAX {
            return Err(Fault::SparseMap.into());
        }
        let read = |bytes: &[u8]| number::field(bytes).ok_or(Fault::SparseMap);
        pieces.push(Piece { offset: read(&descriptor.offset)?, bytes: read(&descriptor.numbytes)? });
    }
    Ok(())
}

/// That the map fits the file's size and the data that the archive holds.
pub fn check(pieces: &[Piece], size: u64, data: u64) -> Result<(), Fault> {
    let mut total = 0_u64;
    let mut end = 0;
    for piece in pieces {
        let next = piece.offset.checked_add(piece.bytes).filter(|next| *next <= size);
        let Some(next) = next.filter(|_| piece.offset >= end) else { return Err(Fault::SparseMap) };
        end = next;
        total += piece.bytes;
    }
    match total == data && i64::try_from(size).is_ok() {
        true => Ok(()),
        false => Err(Fault::SparseMap),
    }
}

/// Reads the map of format 1.0 block by block: the count of pieces, then offset and length of each.
#[derive(Debug, Default)]
pub struct MapReader {
    digits: Vec<u8>,
    count: Option<usize>,
    numbers: Vec<u64>,
}

/// Digits of the largest number.
const DIGITS_MAX: usize = 20;

impl MapReader {
    /// Takes the next block; the pieces once all are there.
    pub fn feed(&mut self, block: &[u8]) -> Result<Option<Vec<Piece>>, Fault> {
        for byte in block {
            match byte {
                b'\n' => {
                    let value = number::decimal(&self.digits).ok_or(Fault::SparseMap)?;
                    self.digits.clear();
                    match self.count {
                        None => self.count = Some(pieces_of(value)?),
                        Some(_) => self.numbers.push(value),
                    }
                    if self.count.is_some_and(|count| self.numbers.len() == count * 2) {
                        let pieces = self.numbers.chunks(2).map(|pair| Piece { offset: pair[0], bytes: pair[1] });
                        return Ok(Some(pieces.collect()));
                    }
                }
                digit if self.digits.len() < DIGITS_MAX => self.digits.push(*digit),
                _ => return Err(Fault::SparseMap),
            }
        }
        Ok(None)
    }
}

fn pieces_of(count: u64) -> Result<usize, Fault> {
    usize::try_from(count).ok().filter(|count| *count <= PIECES_MAX).ok_or(Fault::SparseMap)
}
