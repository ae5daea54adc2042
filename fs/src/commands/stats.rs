//! `lamina-fs stats MOUNTPOINT [--format table|json] [--reset]`: what a mount was asked, and how fast it answered.
//!
//! Owns the arguments. Invariant: a mount whose mountpoint happens to be called `stats` still mounts, as it comes with options
//! that this command does not have.

use lamina_fs::fuse::statistics::{Statistics, StatisticsError};
use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::PathBuf;

const USAGE: &str = "write lamina-fs stats MOUNTPOINT [--format table|json] [--reset]";

/// How the answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Format {
    #[default]
    Table,
    Json,
}

/// One call of the command.
#[derive(Debug, PartialEq, Eq)]
pub struct Stats {
    mountpoint: PathBuf,
    format: Format,
    reset: bool,
}

/// Arguments that do not fit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatsError {
    /// None, or a second one.
    #[error("stats takes one mountpoint: {USAGE}")]
    Mountpoint,
    /// Not one of ours.
    #[error("stats knows no format {0:?}: {USAGE}")]
    Format(String),
    /// Not one of ours.
    #[error("stats knows no option {0}: {USAGE}")]
    Option(String),
}

impl Stats {
    /// The call in these arguments; `None` when they are for another command, or for a mount.
    pub fn parse(arguments: &[OsString]) -> Option<Result<Stats, StatsError>> {
        let (first, rest) = arguments.split_first()?;
        let of_a_mount = |word: &OsString| {
            let word = word.as_encoded_bytes();
            word.starts_with(b"-") && !word.starts_with(b"--")
        };
        (first == "stats" && !rest.iter().any(of_a_mount)).then(|| Stats::parse_rest(rest))
    }

    fn parse_rest(arguments: &[OsString]) -> Result<Stats, StatsError> {
        let (mut mountpoint, mut format, mut reset) = (None, Format::default(), false);
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let text = word.to_string_lossy();
            match text.split_once('=').map_or((&*text, None), |(name, value)| (name, Some(value.to_owned()))) {
                ("--reset", None) => reset = true,
                ("--format", value) => {
                    let value = value.or_else(|| words.next().map(|word| word.to_string_lossy().into_owned()));
                    format = named(value.unwrap_or_default())?;
                }
                (name, _) if name.starts_with("--") => return Err(StatsError::Option(text.into_owned())),
                _ if mountpoint.is_some() => return Err(StatsError::Mountpoint),
                _ => mountpoint = Some(PathBuf::from(word)),
            }
        }
        let mountpoint = mountpoint.ok_or(StatsError::Mountpoint)?;
        Ok(Stats { mountpoint, format, reset })
    }

    /// Asks, and writes the answer.
    ///
    /// # Errors
    /// A sentence.
    pub fn run(&self) -> Result<String, StatisticsError> {
        let statistics = Statistics::read(&self.mountpoint, self.reset)?;
        Ok(match self.format {
            Format::Table => statistics.table(colour()),
            Format::Json => statistics.json(),
        })
    }
}

fn named(format: String) -> Result<Format, StatsError> {
    match format.as_str() {
        "table" => Ok(Format::Table),
        "json" => Ok(Format::Json),
        _ => Err(StatsError::Format(format)),
    }
}

/// On a terminal, unless the user wants none (no-color.org).
fn colour() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !unwanted && std::io::stdout().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Option<Result<Stats, StatsError>> {
        Stats::parse(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn format_is_taken_in_both_spellings() {
        let json = Stats { mountpoint: "/mnt".into(), format: Format::Json, reset: true };
        assert_eq!(parse(&["stats", "/mnt", "--format", "json", "--reset"]), Some(Ok(json)));
        let json = Stats { mountpoint: "/mnt".into(), format: Format::Json, reset: false };
        assert_eq!(parse(&["stats", "--format=json", "/mnt"]), Some(Ok(json)));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        assert_eq!(parse(&["stats"]), Some(Err(StatsError::Mountpoint)));
        assert_eq!(parse(&["stats", "a", "b"]), Some(Err(StatsError::Mountpoint)));
        assert_eq!(parse(&["stats", "a", "--format", "xml"]), Some(Err(StatsError::Format("xml".into()))));
        assert_eq!(parse(&["stats", "a", "--all"]), Some(Err(StatsError::Option("--all".into()))));
    }

    #[test]
    fn mountpoint_called_stats_is_mounted() {
        assert_eq!(parse(&["stats", "-o", "lowerdir=a"]), None);
        assert_eq!(parse(&["-o", "lowerdir=a", "stats"]), None);
    }
}
