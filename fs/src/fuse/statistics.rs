//! The counters as a mount tells them: bytes of an ioctl, a table, JSON.
//!
//! Owns the layout of the answer (docs/operations.md) and its texts. Invariant: `decode` is the inverse of `encode`.

use super::counters::{self, OPCODES, Total, opcode_name};
use crate::error::Error;
use crate::sys::ioctl::{self, STATISTICS_BYTES, StatisticsBytes};
use std::fmt::Write as _;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// The first number of every answer: the layout below.
const LAYOUT: u64 = 2;

/// Numbers before the rows: layout, inodes, and two that are zero.
const HEADER: usize = 4;

/// Numbers in a row.
const COLUMNS: usize = 7;

const _: () = assert!((HEADER + OPCODES * COLUMNS) * size_of::<u64>() == STATISTICS_BYTES);

/// Why a mount does not tell; its text is the whole sentence for the user.
#[derive(Debug, thiserror::Error)]
pub enum StatisticsError {
    /// No way to the directory.
    #[error("cannot open {}: {cause}", path.display())]
    Mountpoint {
        /// As given.
        path: PathBuf,
        /// What the kernel said.
        cause: std::io::Error,
    },
    /// Another filesystem, or not its root.
    #[error("{} is not the root of a mount of lamina-fs; `findmnt -t fuse.lamina-fs` lists them", path.display())]
    NotLamina {
        /// As given.
        path: PathBuf,
    },
    /// Another user's.
    #[error("{} was mounted by another user: ask as that user, or as root", path.display())]
    NotOwner {
        /// As given.
        path: PathBuf,
    },
    /// The kernel's refusal.
    #[error("asking {} failed: {cause}", path.display())]
    Refused {
        /// As given.
        path: PathBuf,
        /// What the kernel said.
        cause: Error,
    },
    /// Another release.
    #[error("the server of {} is of another release: ask with the program that mounted it", path.display())]
    Release {
        /// As given.
        path: PathBuf,
    },
}

/// Asks the mount at `mountpoint` through its root directory.
pub(super) fn ask<T>(
    mountpoint: &Path,
    question: impl FnOnce(BorrowedFd<'_>) -> crate::error::Result<T>,
) -> Result<T, StatisticsError> {
    let path = || mountpoint.to_owned();
    let root = std::fs::File::open(mountpoint).map_err(|cause| StatisticsError::Mountpoint { path: path(), cause })?;
    question(root.as_fd()).map_err(|error| match error {
        Error::Os { errno: libc::ENOTTY | libc::EINVAL | libc::ENOSYS, .. } => {
            StatisticsError::NotLamina { path: path() }
        }
        Error::Os { errno: libc::EPERM, .. } => StatisticsError::NotOwner { path: path() },
        cause => StatisticsError::Refused { path: path(), cause },
    })
}

/// What a mount was asked since it was mounted, or since the counters were reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Inodes that the kernel holds.
    inodes: u64,
    /// By number of opcode.
    totals: [Total; OPCODES],
}

impl Statistics {
    /// Asks the mount at `mountpoint`, and sets its counters to zero if told so.
    ///
    /// # Errors
    /// A sentence.
    pub fn read(mountpoint: &Path, reset: bool) -> Result<Statistics, StatisticsError> {
        let bytes = ask(mountpoint, |root| ioctl::statistics(root, reset))?;
        Statistics::decode(&bytes).ok_or_else(|| StatisticsError::Release { path: mountpoint.to_owned() })
    }

    /// What this process was asked.
    pub(super) fn own(inodes: usize, reset: bool) -> Statistics {
        Statistics { inodes: inodes as u64, totals: counters::totals(reset) }
    }

    pub(super) fn encode(&self) -> StatisticsBytes {
        let rows = self.totals.iter().flat_map(|total| {
            [total.count, total.errors, total.timed, total.sum_ns, total.p50_ns, total.p99_ns, total.calls]
        });
        let mut bytes = [0; STATISTICS_BYTES];
        for (place, number) in
            bytes.chunks_exact_mut(size_of::<u64>()).zip([LAYOUT, self.inodes, 0, 0].into_iter().chain(rows))
        {
            place.copy_from_slice(&number.to_ne_bytes());
        }
        bytes
    }

    fn decode(bytes: &StatisticsBytes) -> Option<Statistics> {
        let (words, _) = bytes.as_chunks::<{ size_of::<u64>() }>();
        let (header, rows) = words.split_at(HEADER);
        let number = |word: &[u8; size_of::<u64>()]| u64::from_ne_bytes(*word);
        if number(&header[0]) != LAYOUT {
            return None;
        }
        let totals = std::array::from_fn(|opcode| {
            let [count, errors, timed, sum_ns, p50_ns, p99_ns, calls] =
                std::array::from_fn(|column| number(&rows[opcode * COLUMNS + column]));
            Total { count, errors, calls, timed, sum_ns, p50_ns, p99_ns }
        });
        Some(Statistics { inodes: number(&header[1]), totals })
    }

    /// The kinds of requests that came, most frequent first.
    fn rows(&self) -> Vec<(&'static str, Total)> {
        let seen = self.totals.iter().enumerate().filter(|(_, total)| total.count > 0);
        let mut rows: Vec<_> = seen.filter_map(|(opcode, total)| Some((opcode_name(opcode)?, *total))).collect();
        rows.sort_by_key(|(name, total)| (std::cmp::Reverse(total.count), *name));
        rows
    }

    /// A line of its own for each kind of request, in aligned columns.
    pub fn table(&self, colour: bool) -> String {
        let mut text = format!("# INODES: {}\n", self.inodes);
        let mut line = |style: &str, cells: [&str; 7]| {
            let [opcode, count, errors, calls, mean, p50, p99] = cells;
            let (on, off) = if colour && !style.is_empty() { (style, "\x1b[0m") } else { ("", "") };
            let columns = format!("{opcode:<15} {count:>12} {errors:>10} {calls:>12} {mean:>10} {p50:>10} {p99:>10}");
            text.write_fmt(format_args!("{on}{columns}{off}\n")).expect("writing to a string does not fail");
        };
        line("\x1b[1m", ["opcode", "count", "errors", "system calls", "mean", "p50", "p99"]);
        let rows = self.rows();
        for (name, total) in &rows {
            let style = if total.errors > 0 { "\x1b[33m" } else { "" };
            let [mean, p50, p99] = [mean_ns(total), total.p50_ns, total.p99_ns].map(duration);
            line(
                style,
                [name, &grouped(total.count), &grouped(total.errors), &grouped(total.calls), &mean, &p50, &p99],
            );
        }
        let sum = |column: fn(&Total) -> u64| grouped(rows.iter().map(|(_, total)| column(total)).sum());
        let [count, errors] = [sum(|total| total.count), sum(|total| total.errors)];
        line("\x1b[1m", ["total", &count, &errors, &sum(|total| total.calls), "", "", ""]);
        text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    /// One object; times in nanoseconds.
    pub fn json(&self) -> String {
        let row = |(name, total): &(&str, Total)| {
            let Total { count, errors, calls, timed, p50_ns, p99_ns, .. } = total;
            let mean_ns = mean_ns(total);
            format!(
                "{{\"opcode\":\"{name}\",\"count\":{count},\"errors\":{errors},\"calls\":{calls},\"timed\":{timed},\
                 \"mean_ns\":{mean_ns},\"p50_ns\":{p50_ns},\"p99_ns\":{p99_ns}}}"
            )
        };
        let rows: Vec<String> = self.rows().iter().map(row).collect();
        format!("{{\"inodes\":{},\"requests\":[\n{}\n]}}\n", self.inodes, rows.join(",\n"))
    }
}

fn mean_ns(total: &Total) -> u64 {
    total.sum_ns.checked_div(total.timed).unwrap_or(0)
}

/// `950 ns`, `12.3 us`, `4.5 ms`, `1.2 s`.
fn duration(ns: u64) -> String {
    let units = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")];
    match units.into_iter().find(|(unit, _)| ns >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", ns as f64 / unit as f64),
        None => format!("{ns} ns"),
    }
}

/// With a comma before each three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&[u8]> = digits.as_bytes().rchunks(3).rev().collect();
    String::from_utf8_lossy(&groups.join(&b',')).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Statistics {
        let mut totals = [Total::default(); OPCODES];
        totals[1] = Total { count: 12, errors: 0, calls: 3, timed: 4, sum_ns: 40_000, p50_ns: 9_000, p99_ns: 20_000 };
        totals[22] =
            Total { count: 1234, errors: 1234, calls: 0, timed: 10, sum_ns: 9_500, p50_ns: 950, p99_ns: 1_500_000 };
        Statistics { inodes: 7, totals }
    }

    #[test]
    fn answer_is_read_as_it_was_written() {
        assert_eq!(Statistics::decode(&sample().encode()), Some(sample()));
        assert_eq!(Statistics::decode(&[0; STATISTICS_BYTES]), None);
    }

    #[test]
    fn table_is_aligned_and_begins_with_the_most_frequent() {
        let expected = "\
# INODES: 7
opcode                 count     errors system calls       mean        p50        p99
GETXATTR               1,234      1,234            0     950 ns     950 ns     1.5 ms
LOOKUP                    12          0            3    10.0 us     9.0 us    20.0 us
total                  1,246      1,234            3
";
        assert_eq!(sample().table(false), expected);
    }

    #[test]
    fn colour_only_adds_to_the_table() {
        let mut plain = sample().table(true);
        ["\x1b[1m", "\x1b[33m", "\x1b[0m"].iter().for_each(|code| plain = plain.replace(code, ""));
        let trimmed: String = plain.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
        assert_eq!(trimmed, sample().table(false));
    }

    #[test]
    fn json_names_every_column() {
        let row = r#"{"opcode":"LOOKUP","count":12,"errors":0,"calls":3,"timed":4,"mean_ns":10000,"p50_ns":9000,"p99_ns":20000}"#;
        assert!(sample().json().contains(row), "{}", sample().json());
    }
}
