//! `lamina-fs usage MOUNTPOINT`: what the upper layer of a mount takes on disk.
//!
//! Owns the arguments. Invariant: as for `stats`, a mount whose mountpoint happens to be called `usage` still mounts.

use lamina_fs::fuse::statistics::StatisticsError;
use lamina_fs::fuse::usage::Answer;
use std::ffi::OsString;
use std::path::PathBuf;

/// One call of the command.
#[derive(Debug, PartialEq, Eq)]
pub struct UsageCommand {
    mountpoint: PathBuf,
}

/// Why there is no number.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// None, a second one, or an option.
    #[error("usage takes one mountpoint and no option: write lamina-fs usage MOUNTPOINT")]
    Arguments,
    /// The mount did not tell.
    #[error(transparent)]
    Asking(#[from] StatisticsError),
    /// Not yet.
    #[error("what the upper layer of {} takes is being counted, as its last server was killed: ask again later", .0.display())]
    Counting(PathBuf),
    /// Never.
    #[error("the mount at {} has no upper layer", .0.display())]
    ReadOnly(PathBuf),
}

impl UsageCommand {
    /// The call in these arguments; `None` when they are for another command, or for a mount.
    pub fn parse(arguments: &[OsString]) -> Option<Result<UsageCommand, UsageError>> {
        let (first, rest) = arguments.split_first()?;
        let of_a_mount = |word: &OsString| {
            let word = word.as_encoded_bytes();
            word.starts_with(b"-") && !word.starts_with(b"--")
        };
        if first != "usage" || rest.iter().any(of_a_mount) {
            return None;
        }
        Some(match rest {
            [mountpoint] if !mountpoint.as_encoded_bytes().starts_with(b"-") => {
                Ok(UsageCommand { mountpoint: mountpoint.into() })
            }
            _ => Err(UsageError::Arguments),
        })
    }

    /// Asks, and writes the answer: bytes and inodes.
    ///
    /// # Errors
    /// A sentence.
    pub fn run(&self) -> Result<String, UsageError> {
        match Answer::read(&self.mountpoint)? {
            Answer::Known(usage) => Ok(format!("{} bytes, {} inodes\n", usage.bytes, usage.inodes)),
            Answer::Counting => Err(UsageError::Counting(self.mountpoint.clone())),
            Answer::ReadOnly => Err(UsageError::ReadOnly(self.mountpoint.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Option<Result<UsageCommand, UsageError>> {
        UsageCommand::parse(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn one_mountpoint_is_taken() {
        assert!(matches!(parse(&["usage", "/mnt"]), Some(Ok(_))));
        assert!(matches!(parse(&["usage"]), Some(Err(UsageError::Arguments))));
        assert!(matches!(parse(&["usage", "a", "b"]), Some(Err(UsageError::Arguments))));
        assert!(matches!(parse(&["usage", "--all"]), Some(Err(UsageError::Arguments))));
    }

    #[test]
    fn mountpoint_called_usage_is_mounted() {
        assert!(parse(&["usage", "-o", "lowerdir=a"]).is_none());
        assert!(parse(&["-o", "lowerdir=a", "usage"]).is_none());
    }
}
