//! How answers are written: lines, tables, JSON.
//!
//! Invariant: with JSON standard output is JSON and nothing else, one object a line as docker has it, or one array.

use clap::ValueEnum;
use lamina_snapshotter::digest::Digest;
use lamina_snapshotter::image::Reference;
use serde::Serialize;
use std::io::{ErrorKind, Write as _};

/// Digits of a digest in a table.
const SHOWN_DIGITS: usize = 12;

/// How a list is written.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Columns.
    Table,
    /// One JSON object a line.
    Json,
}

/// Writes lines.
pub fn say(text: &str) -> anyhow::Result<()> {
    let text = text.trim_end();
    let line = if text.is_empty() { String::new() } else { format!("{text}\n") };
    match std::io::stdout().write_all(line.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Writes rows under a head.
pub fn say_table(head: &[&str], rows: Vec<Vec<String>>) -> anyhow::Result<()> {
    let head = head.iter().map(|word| (*word).to_owned()).collect();
    say(&lamina_snapshotter::terminal::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()))
}

/// Writes one object a line.
pub fn say_json_lines<T: Serialize>(objects: &[T]) -> anyhow::Result<()> {
    let lines = objects.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    say(&lines.join("\n"))
}

/// Writes one document for people and programs.
pub fn say_json(document: &impl Serialize) -> anyhow::Result<()> {
    say(&serde_json::to_string_pretty(document)?)
}

/// The digits of a digest that people see.
pub fn short(digest: &Digest) -> String {
    digest.hex()[..SHOWN_DIGITS].to_owned()
}

/// A stored name as people write it.
pub fn familiar(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_| name.to_owned(), |name| name.familiar())
}
