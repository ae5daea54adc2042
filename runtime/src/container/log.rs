//! What a container said, in the format that Kubernetes' tools read: `TIME STREAM F|P TEXT`, one line each.
//!
//! Owns the format and the rotation. Invariant: one process writes, and a line is one write; what is no whole line yet is marked `P`, and
//! goes on in the next record of its stream.

use super::error::{Error, Result};
use crate::oci::log::rfc3339;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A log that is larger moves aside, to `log.1`, whose own content goes: so a container keeps at most twice as much.
pub const LOG_BYTES_MAX: u64 = 16 << 20;

/// Longer lines are cut into several records.
const TEXT_BYTES_MAX: usize = 16 << 10;

/// Where it was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or a terminal.
    Output,
    /// Standard error.
    Errors,
}

impl Stream {
    fn word(self) -> &'static str {
        match self {
            Stream::Output => "stdout",
            Stream::Errors => "stderr",
        }
    }
}

/// The one writer of a log.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Writer {
    /// Goes on with the log at `path`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: &Path) -> Result<Writer> {
        let file = open(path)?;
        let bytes = file.metadata().map_err(Error::io("look at", path))?.len();
        Ok(Writer { path: path.to_owned(), file, bytes })
    }

    /// Writes down what was said now.
    ///
    /// # Errors
    /// [`Error::Io`]; a disk that is full, for one.
    pub fn write(&mut self, stream: Stream, said: &[u8]) -> Result<()> {
        if self.bytes >= LOG_BYTES_MAX {
            self.rotate()?;
        }
        let time = rfc3339(SystemTime::now());
        let mut records = Vec::with_capacity(said.len() + 64);
        for line in said.split_inclusive(|byte| *byte == b'\n') {
            let (text, whole) = line.strip_suffix(b"\n").map_or((line, false), |text| (text, true));
            let mut pieces = text.chunks(TEXT_BYTES_MAX).peekable();
            if pieces.peek().is_none() {
                record(&mut records, &time, stream, whole, b"");
            }
            while let Some(piece) = pieces.next() {
                record(&mut records, &time, stream, whole && pieces.peek().is_none(), piece);
            }
        }
        self.file.write_all(&records).map_err(Error::io("write", &self.path))?;
        self.bytes += records.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> Result<()> {
        fs::rename(&self.path, old(&self.path)).map_err(Error::io("move aside", &self.path))?;
        self.file = open(&self.path)?;
        self.bytes = 0;
        Ok(())
    }
}

fn record(records: &mut Vec<u8>, time: &str, stream: Stream, whole: bool, text: &[u8]) {
    let tag = if whole { "F" } else { "P" };
    records.extend_from_slice(format!("{time} {} {tag} ", stream.word()).as_bytes());
    records.extend_from_slice(text);
    records.push(b'\n');
}

fn open(path: &Path) -> Result<File> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    opened.map_err(Error::io("open", path))
}

/// Where a log that was too large lies.
pub fn old(path: &Path) -> PathBuf {
    path.with_extension("1")
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// RFC 3339 in UTC.
    pub time: &'a str,
    /// Where.
    pub stream: Stream,
    /// Whether the line ends here.
    pub whole: bool,
    /// What.
    pub text: &'a [u8],
}

impl Entry<'_> {
    /// Reads one line of a log, without its end; none for what is no record.
    pub fn parse(line: &[u8]) -> Option<Entry<'_>> {
        let mut words = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(words.next()?).ok()?;
        let stream = match words.next()? {
            b"stdout" => Stream::Output,
            b"stderr" => Stream::Errors,
            _ => return None,
        };
        let whole = match words.next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        Some(Entry { time, stream, whole, text: words.next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(said: &[&[u8]]) -> Vec<(String, bool, Vec<u8>)> {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        let mut writer = Writer::open(&path).unwrap();
        said.iter().for_each(|said| writer.write(Stream::Output, said).unwrap());
        let text = fs::read(&path).unwrap();
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let entries = lines.map(|line| Entry::parse(line).unwrap());
        entries.map(|entry| (entry.time.to_owned(), entry.whole, entry.text.to_vec())).collect()
    }

    #[test]
    fn lines_and_parts_of_lines_are_told_apart() {
        let found = written(&[b"one\n\ntw", b"o\n", b"three"]);
        let shown: Vec<(bool, &[u8])> = found.iter().map(|(_, whole, text)| (*whole, text.as_slice())).collect();
        assert_eq!(shown, [(true, &b"one"[..]), (true, b""), (false, b"tw"), (true, b"o"), (false, b"three")]);
        assert_eq!(found[0].0.len(), "2026-11-25T10:00:00.000000000Z".len());
    }

    #[test]
    fn a_long_line_is_cut() {
        let long = vec![b'x'; TEXT_BYTES_MAX + 1];
        let found = written(&[&[&long[..], b"\n"].concat()]);
        assert_eq!(
            found.iter().map(|(_, whole, text)| (*whole, text.len())).collect::<Vec<_>>(),
            [(false, TEXT_BYTES_MAX), (true, 1)]
        );
    }

    #[test]
    fn a_large_log_moves_aside() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        let mut writer = Writer::open(&path).unwrap();
        writer.write(Stream::Errors, b"old\n").unwrap();
        writer.bytes = LOG_BYTES_MAX;
        writer.write(Stream::Errors, b"new\n").unwrap();
        assert!(fs::read_to_string(old(&path)).unwrap().ends_with("stderr F old\n"));
        assert!(fs::read_to_string(&path).unwrap().ends_with("stderr F new\n"));
    }
}
