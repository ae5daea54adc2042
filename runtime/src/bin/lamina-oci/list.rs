//! `lamina-oci list`.

use crate::print;
use clap::{Args, ValueEnum};
use lamina_runtime::error::{Error, Result};
use lamina_runtime::oci::state::Root;
use serde_json::Value;

/// List the containers
#[derive(Debug, Args)]
pub struct List {
    /// How to print them
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Only their names
    #[arg(short, long)]
    quiet: bool,
}

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

impl List {
    pub fn run(self, root: &Root) -> Result<()> {
        let mut states = Vec::new();
        for container in root.list()? {
            let state = serde_json::to_value(container.saved.state(container.status()?));
            states.push(state.map_err(|source| Error::Json { place: container.saved.id.clone(), source })?);
        }
        let text = |state: &Value, key: &str| match &state[key] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if self.quiet {
            return states.iter().try_for_each(|state| print(&text(state, "id")));
        }
        if self.format == Format::Json {
            return print(&Value::from(states).to_string());
        }
        let keys = ["id", "pid", "status", "bundle", "created", "owner"];
        let mut rows = vec![keys.map(str::to_uppercase)];
        rows.extend(states.iter().map(|state| keys.map(|key| text(state, key))));
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..keys.len()).map(width).collect();
        for row in &rows {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            print(cells.join("   ").trim_end())?;
        }
        Ok(())
    }
}
