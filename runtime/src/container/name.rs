//! The name of a container, given or made up.
//!
//! Invariant: a value matches `[a-zA-Z0-9][a-zA-Z0-9_.-]*` and fits a file name.

use super::error::{Error, Result};
use super::id::random_bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The longest name of a file on the filesystems of Linux.
const BYTES_MAX: usize = 255;

const QUALITIES: [&str; 32] = [
    "amber", "ample", "brisk", "calm", "clear", "coral", "crisp", "deep", "dusky", "early", "fair", "fine", "glad",
    "hazel", "keen", "late", "light", "lofty", "mellow", "mild", "neat", "noble", "plain", "quick", "quiet", "ready",
    "silver", "solid", "still", "swift", "tidy", "warm",
];

const THINGS: [&str; 32] = [
    "agate", "basalt", "birch", "brook", "cedar", "chalk", "cliff", "delta", "dune", "fern", "flint", "gneiss",
    "granite", "harbor", "heron", "inlet", "lagoon", "larch", "marble", "meadow", "mica", "moraine", "opal", "quartz",
    "reed", "ridge", "schist", "shale", "slate", "spruce", "terrace", "tundra",
];

/// A container's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// One of two words; `attempt` counts those that were taken, and from 1 on a number makes them many.
    ///
    /// # Errors
    /// The kernel's; see getrandom(2).
    pub fn random(attempt: u32) -> Result<Name> {
        let [first, second, tail @ ..]: [u8; 6] = random_bytes()?;
        let pick = |words: &[&'static str; 32], byte: u8| words[usize::from(byte) % words.len()];
        let words = format!("{}_{}", pick(&QUALITIES, first), pick(&THINGS, second));
        Ok(Name(if attempt == 0 { words } else { format!("{words}_{}", u32::from_le_bytes(tail)) }))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Name> {
        // Docker takes the slash that its interface puts before names.
        let name = text.strip_prefix('/').unwrap_or(text);
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        match begins && name.len() <= BYTES_MAX && name.bytes().all(fits) {
            true => Ok(Name(name.to_owned())),
            false => Err(Error::BadName { text: text.to_owned(), bytes_max: BYTES_MAX }),
        }
    }
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(text: String) -> Result<Name> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
