//! `lamina-fs usage MOUNTPOINT`: what the upper layer of a mount takes on disk.

use super::question::{Form, Format, Question};
use lamina_fs::fuse::statistics::StatisticsError;
use lamina_fs::fuse::usage::Answer;
use std::path::PathBuf;

/// Its arguments.
pub static FORM: Form = Form { name: "usage", arguments: "MOUNTPOINT [--format table|json]", has_reset: false };

/// Why there is no number.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
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

/// Asks, and answers with what is to be printed: bytes and inodes.
///
/// # Errors
/// A sentence.
pub fn run(question: &Question) -> Result<String, UsageError> {
    match (Answer::read(&question.mountpoint)?, question.format) {
        (Answer::Known(usage), Format::Table) => Ok(format!("{} bytes, {} inodes\n", usage.bytes, usage.inodes)),
        (Answer::Known(usage), Format::Json) => {
            Ok(format!("{{\"bytes\":{},\"inodes\":{}}}\n", usage.bytes, usage.inodes))
        }
        (Answer::Counting, _) => Err(UsageError::Counting(question.mountpoint.clone())),
        (Answer::ReadOnly, _) => Err(UsageError::ReadOnly(question.mountpoint.clone())),
    }
}
