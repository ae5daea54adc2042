//! The grammar of a `-o` list: words, quotes, escapes.
//!
//! Owns splitting and joining. Must not know what a word means. Invariants: a word in quotes keeps its commas, as SELinux
//! contexts need; `escape` and `path` are inverse for every path.

use super::OptionError;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a backslash makes literal. Before anything else it stands for itself.
const ESCAPED: [u8; 4] = *b"\\:,\"";

/// One `key` or `key=value`; the value still has its escapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    key: String,
    value: Option<Vec<u8>>,
}

/// Cuts a list at its commas. One that stands in quotes or after a backslash belongs to its word.
pub(super) fn split(list: &[u8]) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word = Vec::new();
    let mut quoted = false;
    let mut rest = list;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'\\' => {
                word.push(b'\\');
                if let [next, tail @ ..] = rest {
                    word.push(*next);
                    rest = tail;
                }
            }
            b'"' if quoted && matches!(rest, [] | [b',', ..]) => quoted = false,
            // A quote opens only where a value begins and only if it closes: elsewhere it is a character like any other.
            b'"' if !quoted && begins_value(&word) && closes(rest) => quoted = true,
            b',' if !quoted => words.extend(Word::new(&std::mem::take(&mut word))),
            byte => word.push(*byte),
        }
    }
    words.extend(Word::new(&word));
    words
}

fn begins_value(word: &[u8]) -> bool {
    word.iter().position(|byte| *byte == b'=') == word.len().checked_sub(1)
}

fn closes(rest: &[u8]) -> bool {
    rest.ends_with(b"\"") || rest.windows(2).any(|pair| pair == b"\",")
}

/// The paths of a `lowerdir`, topmost first.
pub(super) fn lower_paths(value: &[u8]) -> Result<Vec<PathBuf>, OptionError> {
    let mut paths = Vec::new();
    let mut current = Vec::new();
    let mut rest = value;
    loop {
        match rest {
            [b'\\', next, tail @ ..] => {
                current.extend([b'\\', *next]);
                rest = tail;
            }
            [b':', tail @ ..] => {
                paths.push(lower_path(&std::mem::take(&mut current))?);
                rest = tail;
            }
            [byte, tail @ ..] => {
                current.push(*byte);
                rest = tail;
            }
            [] => {
                paths.push(lower_path(&current)?);
                return Ok(paths);
            }
        }
    }
}

fn lower_path(value: &[u8]) -> Result<PathBuf, OptionError> {
    let layer = String::from_utf8_lossy(value).into_owned();
    match value {
        [] => Err(OptionError::LowerEmpty),
        [b'/', b'/', ..] => Err(OptionError::PluginLayer { layer }),
        value => Ok(path(value)),
    }
}

/// The path that a value means.
pub(super) fn path(value: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match (byte, rest) {
            (b'\\', [next, tail @ ..]) if ESCAPED.contains(next) => {
                bytes.push(*next);
                rest = tail;
            }
            _ => bytes.push(*byte),
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// The value that means a path.
pub(super) fn escape(path: &Path) -> Vec<u8> {
    let mut value = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if ESCAPED.contains(byte) {
            value.push(b'\\');
        }
        value.push(*byte);
    }
    value
}

impl Word {
    fn new(text: &[u8]) -> Option<Word> {
        if text.is_empty() {
            return None;
        }
        let mut halves = text.splitn(2, |byte| *byte == b'=');
        let key = String::from_utf8_lossy(halves.next().unwrap_or_default()).into_owned();
        Some(Word { key, value: halves.next().map(<[u8]>::to_vec) })
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }

    /// As it stood in the list.
    pub(super) fn text(&self) -> Vec<u8> {
        match &self.value {
            None => self.key.clone().into_bytes(),
            Some(value) => [self.key.as_bytes(), b"=", value].concat(),
        }
    }

    pub(super) fn required(&self) -> Result<&[u8], OptionError> {
        match self.value() {
            None | Some([]) => Err(OptionError::ValueMissing { word: self.key.clone() }),
            Some(value) => Ok(value),
        }
    }

    /// `key`, `key=1` or `key=0`.
    pub(super) fn switch(&self) -> Result<bool, OptionError> {
        match self.value() {
            None | Some(b"1") => Ok(true),
            Some(b"0") => Ok(false),
            Some(_) => Err(self.refused("0 or 1")),
        }
    }

    /// A user or group id.
    pub(super) fn id(&self) -> Result<u32, OptionError> {
        // The highest number means "no id" in chown(2).
        match str::from_utf8(self.required()?).ok().and_then(|text| text.parse().ok()) {
            Some(u32::MAX) | None => Err(self.refused("a number from 0 to 4294967294")),
            Some(id) => Ok(id),
        }
    }

    /// A time in seconds, with a fraction if need be.
    pub(super) fn seconds(&self) -> Result<Duration, OptionError> {
        let seconds = str::from_utf8(self.required()?).ok().and_then(|text| text.parse().ok());
        seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .ok_or_else(|| self.refused("a number of seconds, not below 0"))
    }

    /// The error for a value that means nothing.
    pub(super) fn refused(&self, expected: &'static str) -> OptionError {
        let value = String::from_utf8_lossy(self.value().unwrap_or_default()).into_owned();
        OptionError::Value { word: self.key.clone(), value, expected }
    }
}
