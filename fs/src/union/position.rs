//! Where in a directory a name stands: an order of names that depends on nothing but the names.
//!
//! Owns the numbers that readdir(3), telldir(3) and seekdir(3) carry. Must not know directories. Invariant: after any position
//! stand the same names, whatever was created or removed since it was given out, by whomever it is asked: nothing has to
//! be remembered for an open directory.
//!
//! Names stand in the order of a hash. A position is the upper half of the hash of the name before it, which fits 31 bits, as
//! programs of 32 bits need. Only where two names of a listing share that half, some two in a directory of 100,000, theirs
//! are the whole hash. Two names would have to share 62 bits to be taken for one.

use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};

/// Bits of each half.
const HALF_BITS: u32 = 31;
const HALF_MASK: u64 = (1 << HALF_BITS) - 1;
/// Marks a position that is a whole hash.
const WHOLE: u64 = 1 << (2 * HALF_BITS);
/// The upper halves of `.` and `..`; 0 is the start.
const DOTS: [&str; 2] = [".", ".."];
/// The least upper half of any other name.
const UPPER_MIN: u64 = 3;

/// The place of a name: names are listed in ascending order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place(u64);

/// The order of one mount.
#[derive(Debug, Default)]
pub struct Order(RandomState);

impl Order {
    /// Where a name stands.
    pub fn place(&self, name: &OsStr) -> Place {
        if let Some(dot) = DOTS.iter().position(|dot| name == *dot) {
            return Place((dot as u64 + 1) << HALF_BITS);
        }
        let hash = self.0.hash_one(name);
        let upper = (hash >> (u64::BITS - HALF_BITS)).clamp(UPPER_MIN, HALF_MASK);
        Place(upper << HALF_BITS | hash & HALF_MASK)
    }
}

impl Place {
    /// The position behind a name; `crowded` where another name of the listing has the same upper half.
    pub fn behind(self, crowded: bool) -> u64 {
        match crowded {
            true => WHOLE | self.0,
            false => self.0 >> HALF_BITS,
        }
    }

    /// Whether the name stands after a position.
    pub fn is_after(self, position: u64) -> bool {
        match position & WHOLE {
            0 => self.0 >> HALF_BITS > position,
            _ => self.0 > position & !WHOLE,
        }
    }

    /// Whether two names share the upper half.
    pub fn crowds(self, other: Place) -> bool {
        self.0 >> HALF_BITS == other.0 >> HALF_BITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(upper: u64, lower: u64) -> Place {
        Place(upper << HALF_BITS | lower)
    }

    #[test]
    fn dots_come_first_and_positions_fit_32_bits() {
        let order = Order::default();
        let (dot, dots) = (order.place(OsStr::new(".")), order.place(OsStr::new("..")));
        assert!(dot.is_after(0) && !dot.is_after(1) && dots.is_after(1) && !dots.is_after(2));
        for name in (0..1000).map(|name| name.to_string()) {
            let place = order.place(OsStr::new(&name));
            assert_eq!(place, order.place(OsStr::new(&name)));
            assert!(place > dots && place.is_after(2));
            assert!(i32::try_from(place.behind(false)).is_ok());
            assert!(i64::try_from(place.behind(true)).is_ok());
            assert!(!place.is_after(place.behind(false)) && !place.is_after(place.behind(true)));
        }
    }

    #[test]
    fn crowded_names_are_told_apart() {
        let [first, second, next] = [place(7, 1), place(7, 2), place(8, 0)];
        assert!(first.crowds(second) && !second.crowds(next));
        let between = first.behind(true);
        assert!(!first.is_after(between) && second.is_after(between) && next.is_after(between));
        // Given out before the second was created, or after it was removed: nobody is shown the first again.
        let short = first.behind(false);
        assert!(!first.is_after(short) && next.is_after(short));
    }
}
