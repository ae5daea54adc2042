//! The ID of a container: 32 random bytes.
//!
//! Invariant: a value is 64 lower-case hexadecimal digits, so it can name a file.

use super::error::{Error, Result};
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;

const DIGITS: usize = 64;
/// How many digits people see.
const SHOWN_DIGITS: usize = 12;

/// A container's ID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

impl Id {
    /// One that nobody has.
    ///
    /// # Errors
    /// The kernel's; see getrandom(2).
    pub fn random() -> Result<Id> {
        let bytes: [u8; DIGITS / 2] = random_bytes()?;
        Ok(Id(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 12 digits that people see.
    pub fn short(&self) -> &str {
        &self.0[..SHOWN_DIGITS]
    }
}

/// From the kernel's generator.
pub(super) fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let failed = |cause: io::Error| Error::io("read random bytes from", Path::new("getrandom(2)"))(cause);
    // Up to 256 bytes come whole: getrandom(2).
    match getrandom(&mut bytes, GetRandomFlags::empty()).map_err(|errno| failed(errno.into()))? {
        read if read == N => Ok(bytes),
        _ => Err(failed(io::ErrorKind::UnexpectedEof.into())),
    }
}

impl FromStr for Id {
    type Err = Error;

    fn from_str(text: &str) -> Result<Id> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        match text.len() == DIGITS && text.bytes().all(digit) {
            true => Ok(Id(text.to_owned())),
            false => Err(Error::BadId { text: text.to_owned() }),
        }
    }
}

impl TryFrom<String> for Id {
    type Error = Error;

    fn try_from(text: String) -> Result<Id> {
        text.parse()
    }
}

impl From<Id> for String {
    fn from(id: Id) -> String {
        id.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
