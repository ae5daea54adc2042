//! The three digests of an image: of a blob, of an unpacked layer, of a chain of layers.
//!
//! Owns parsing, printing and the chain rule. Invariant: a value is the 32 bytes of a SHA-256; no other algorithm gets past
//! the border.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;

const PREFIX: &str = "sha256:";
const BYTES: usize = 32;

/// The digest of a blob as it is stored and transferred.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; BYTES]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// From the output of a SHA-256.
    pub fn from_bytes(bytes: [u8; BYTES]) -> Digest {
        Digest(bytes)
    }

    /// The 64 hexadecimal digits, as they name a file.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// From the 64 hexadecimal digits alone.
    ///
    /// # Errors
    /// [`Error::BadDigest`].
    pub fn from_hex(hex: &str) -> Result<Digest> {
        let bad = || Error::BadDigest { text: hex.to_owned() };
        let digits = hex.as_bytes();
        if digits.len() != 2 * BYTES {
            return Err(bad());
        }
        let mut bytes = [0; BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0]).ok_or_else(bad)? << 4 | nibble(pair[1]).ok_or_else(bad)?;
        }
        Ok(Digest(bytes))
    }
}

/// Lower case only, as the image specification demands: two spellings of one digest would be two names.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Digest> {
        let hex = text.strip_prefix(PREFIX).ok_or_else(|| Error::BadDigest { text: text.to_owned() })?;
        Digest::from_hex(hex).map_err(|_| Error::BadDigest { text: text.to_owned() })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{PREFIX}{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Digest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// Hashes what passes.
#[derive(Clone, Debug, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes so far.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

macro_rules! digest_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Digest);

        impl $name {
            /// The plain digest.
            pub fn digest(&self) -> &Digest {
                &self.0
            }
        }

        impl From<Digest> for $name {
            fn from(digest: Digest) -> $name {
                $name(digest)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<$name> {
                text.parse().map($name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

digest_type! {
    /// The digest of a layer's uncompressed tar.
    DiffId
}

digest_type! {
    /// The name of a stack of layers: what is below counts as much as what is on top.
    ChainId
}

impl ChainId {
    /// The chain that `diff` makes on top of `parent` (image specification, "Layer ChainID").
    pub fn of(parent: Option<&ChainId>, diff: &DiffId) -> ChainId {
        match parent {
            None => ChainId(diff.0),
            Some(parent) => ChainId(Digest::of(format!("{parent} {diff}").as_bytes())),
        }
    }

    /// The chains of a list of layers, bottom first.
    pub fn chains(diffs: &[DiffId]) -> Vec<ChainId> {
        let mut chains: Vec<ChainId> = Vec::with_capacity(diffs.len());
        for diff in diffs {
            chains.push(ChainId::of(chains.last(), diff));
        }
        chains
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digest_of_nothing_is_the_known_one() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Digest::of(b""));
    }

    #[test]
    fn other_algorithms_lengths_and_spellings_are_refused() {
        for text in ["", "sha256:", "sha512:00", &EMPTY[7..], &EMPTY[..70], &EMPTY.to_uppercase(), &format!("{EMPTY}0")]
        {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn hex_of_other_characters_is_refused_not_cut() {
        let text = format!("sha256:{}", "é".repeat(32));
        assert!(text.parse::<Digest>().is_err());
    }

    #[test]
    fn a_chain_names_what_is_below_it() {
        let (a, b) = (DiffId::from(Digest::of(b"a")), DiffId::from(Digest::of(b"b")));
        let chains = ChainId::chains(&[a, b]);
        assert_eq!(chains[0].digest(), a.digest());
        assert_eq!(chains[1].digest(), &Digest::of(format!("{a} {b}").as_bytes()));
    }
}
