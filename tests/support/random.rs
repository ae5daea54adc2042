//! Numbers that look random and can be had again. It owns the generator (xorshift of 64 bits). Invariant: equal seeds, equal numbers.

/// A generator; its state is the seed of all that follows, and never 0.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`, which is above 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
