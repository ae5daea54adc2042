//! What the upper layer of a mount takes on disk, as the mount tells it: the bytes of an ioctl.
//!
//! Owns the layout of the answer (docs/operations.md). Must not know how it is counted. Invariant: `decode` is the inverse of `encode`.

use super::statistics::{StatisticsError, ask};
use crate::sys::ioctl::{self, USAGE_BYTES, UsageBytes};
use crate::union::Usage;
use std::path::Path;

/// What a mount says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is not known, because the last server of the upper layer was killed, or somebody else has written to it: it is being counted.
    Counting,
    /// This much.
    Known(Usage),
    /// There is no upper layer.
    ReadOnly,
}

const COUNTING: u64 = 0;
const KNOWN: u64 = 1;
const READ_ONLY: u64 = 2;

impl Answer {
    /// Asks the mount at `mountpoint`.
    ///
    /// # Errors
    /// A sentence.
    pub fn read(mountpoint: &Path) -> Result<Answer, StatisticsError> {
        let bytes = ask(mountpoint, ioctl::usage)?;
        Answer::decode(&bytes).ok_or_else(|| StatisticsError::Release { path: mountpoint.to_owned() })
    }

    /// Three numbers: what is known, bytes, inodes.
    pub(super) fn encode(self) -> UsageBytes {
        let (kind, usage) = match self {
            Answer::Counting => (COUNTING, Usage::default()),
            Answer::Known(usage) => (KNOWN, usage),
            Answer::ReadOnly => (READ_ONLY, Usage::default()),
        };
        let mut bytes = [0; USAGE_BYTES];
        for (place, number) in bytes.chunks_exact_mut(size_of::<u64>()).zip([kind, usage.bytes, usage.inodes]) {
            place.copy_from_slice(&number.to_ne_bytes());
        }
        bytes
    }

    fn decode(bytes: &UsageBytes) -> Option<Answer> {
        let (words, _) = bytes.as_chunks::<{ size_of::<u64>() }>();
        let number = |at: usize| u64::from_ne_bytes(words[at]);
        match number(0) {
            COUNTING => Some(Answer::Counting),
            KNOWN => Some(Answer::Known(Usage { bytes: number(1), inodes: number(2) })),
            READ_ONLY => Some(Answer::ReadOnly),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_read_as_it_was_written() {
        let known = Answer::Known(Usage { bytes: 4096, inodes: 2 });
        for answer in [Answer::Counting, known, Answer::ReadOnly] {
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }
        assert_eq!(Answer::decode(&[9; USAGE_BYTES]), None);
    }
}
