//! `lamina-fs stats MOUNTPOINT`: what a mount was asked, and how fast it answered.

use super::question::{Form, Format, Question};
use lamina_fs::fuse::statistics::{Statistics, StatisticsError};
use std::io::IsTerminal as _;

/// Its arguments.
pub static FORM: Form =
    Form { name: "stats", arguments: "MOUNTPOINT [--format table|json] [--reset]", has_reset: true };

/// Asks, and answers with what is to be printed.
///
/// # Errors
/// A sentence.
pub fn run(question: &Question) -> Result<String, StatisticsError> {
    let statistics = Statistics::read(&question.mountpoint, question.reset)?;
    Ok(match question.format {
        Format::Table => statistics.table(colour()),
        Format::Json => statistics.json(),
    })
}

/// On a terminal, unless the user wants none (no-color.org).
fn colour() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !unwanted && std::io::stdout().is_terminal()
}
