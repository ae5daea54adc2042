//! Where a name stands in its directory's table.
//!
//! Owns the hash, which is part of the format and described in docs/format.md. Invariant: it has no key, so the same layers give
//! the same index. Names that somebody chose to collide cost a few more comparisons and no more: the table is searched by
//! halves, not walked.

const SEED: u64 = 0xa076_1d64_78bd_642f;
const WORD: u64 = 0xe703_7ed1_a0b4_28db;
const LAST: u64 = 0x8ebc_6af0_9c88_c6e3;

/// Multiplies to 128 bits and folds the halves: every bit of the factors reaches every bit of the result.
#[inline]
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    (product as u64) ^ (product >> 64) as u64
}

/// The 64-bit hash of a name: its bytes as little-endian words, the last one filled with zeros.
#[inline]
fn hash(name: &[u8]) -> u64 {
    let (words, rest) = name.as_chunks::<8>();
    let mut state = SEED ^ name.len() as u64;
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word), WORD);
    }
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        state = fold(state ^ u64::from_le_bytes(word), WORD);
    }
    fold(state, LAST)
}

/// The upper half of the hash, by which a table is sorted.
#[inline]
pub fn tag(name: &[u8]) -> u32 {
    (hash(name) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_format() {
        // Written down in docs/format.md: a change here is a new version of the format.
        assert_eq!(hash(b""), 0xe28f_2b20_61a2_b984);
        assert_eq!(hash(b"passwd"), 0x7258_c612_d208_6146);
        assert_eq!(hash(b"libc.so.6-and-more"), 0x0e96_0d39_a9c0_05da);
    }

    #[test]
    fn names_that_differ_in_little_spread() {
        let mut tags: Vec<u32> = (0..10_000).map(|n| tag(format!("file{n}").as_bytes()) >> 19).collect();
        tags.sort_unstable();
        tags.dedup();
        // 10,000 balls in 8,192 bins leave some 71 % of the bins filled.
        assert!(tags.len() > 5_600, "{}", tags.len());
    }
}
