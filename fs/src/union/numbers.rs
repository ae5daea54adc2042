//! Which inode number a file shows.
//!
//! Owns the rule from (device, inode number on it) to a number that is the same after a remount. Must not know layers.
//! Invariant: numbers 0 and 1 are never given out (1 is the root of a FUSE mount).

use parking_lot::RwLock;

/// Bits of a real inode number that fit below the device's ordinal.
const REAL_BITS: u32 = 48;

/// The devices of a stack, in the order of the layers: the first one's inode numbers are shown as they are.
#[derive(Debug)]
pub struct Numbering {
    devices: RwLock<Vec<u64>>,
}

impl Numbering {
    /// Takes the devices of the layers, topmost first.
    pub fn new(layers: impl IntoIterator<Item = u64>) -> Self {
        let mut devices = Vec::new();
        for dev in layers {
            if !devices.contains(&dev) {
                devices.push(dev);
            }
        }
        Numbering { devices: RwLock::new(devices) }
    }

    /// The number of a file; `attempt` counts up while the answer is taken by a different file.
    pub fn number(&self, dev: u64, ino: u64, attempt: u32) -> u64 {
        candidate(self.ordinal(dev), ino, attempt)
    }

    fn ordinal(&self, dev: u64) -> u64 {
        let position = |devices: &[u64]| devices.iter().position(|known| *known == dev);
        if let Some(found) = position(&self.devices.read()) {
            return found as u64;
        }
        // A mount inside a layer: its ordinal is that of its first use.
        let mut devices = self.devices.write();
        match position(&devices) {
            Some(found) => found as u64,
            None => {
                devices.push(dev);
                devices.len() as u64 - 1
            }
        }
    }
}

fn candidate(ordinal: u64, ino: u64, attempt: u32) -> u64 {
    if attempt == 0 && ino > 1 {
        if ordinal == 0 {
            return ino;
        }
        if ino >> REAL_BITS == 0 && ordinal < 1 << (63 - REAL_BITS) {
            return ordinal << REAL_BITS | ino;
        }
    }
    // The top bit keeps these apart from the numbers above.
    let mixed = mix(mix(ordinal ^ (u64::from(attempt) << 32)) ^ ino);
    mixed | 1 << 63
}

/// The finaliser of SplitMix64: every bit of the input reaches every bit of the output.
fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_device_shows_its_own_numbers() {
        let numbering = Numbering::new([7, 9, 7]);
        assert_eq!(numbering.number(7, 1234, 0), 1234);
        assert_eq!(numbering.number(9, 1234, 0), 1 << 48 | 1234);
        assert_eq!(numbering.number(11, 1234, 0), 2 << 48 | 1234);
    }

    #[test]
    fn reserved_and_taken_numbers_are_avoided() {
        for (ordinal, ino, attempt) in [(0, 0, 0), (0, 1, 0), (3, 1, 0), (0, 5, 1), (1, 1 << 50, 0)] {
            let number = candidate(ordinal, ino, attempt);
            assert!(number > 1, "{ordinal} {ino} {attempt}");
            assert_ne!(number, candidate(ordinal, ino, attempt + 1));
        }
    }
}
