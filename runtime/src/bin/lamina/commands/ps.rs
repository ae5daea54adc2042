//! `lamina ps`.

use super::Place;
use clap::{Args, ValueEnum};
use lamina_runtime::container::status::State;
use lamina_runtime::container::{Container, clock};
use serde_json::{Value, json};

/// List containers
#[derive(Args, Debug)]
pub struct Ps {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Print whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Only those with name=TEXT, id=TEXT, label=NAME[=VALUE], status=WORD, ancestor=IMAGE; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// How the answer is written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Table,
    Json,
}

/// As much of a command as a table shows.
const COMMAND_CHARACTERS: usize = 20;

impl Ps {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        let filters = self.filters()?;
        // Asked for a state that does not run, those that do not are meant.
        let all = self.all || filters.iter().any(|(key, _)| *key == "status");
        let mut found = Vec::new();
        for container in place.containers()?.list()? {
            let state = container.state()?;
            if (all || state.runs()) && filters.iter().all(|(key, value)| matches(&container, &state, key, value)) {
                found.push((container, state));
            }
        }
        super::print(&self.text(&found))?;
        Ok(0)
    }

    fn filters(&self) -> anyhow::Result<Vec<(&str, &str)>> {
        let known = |filter: &'_ str| -> anyhow::Result<()> {
            match filter.split_once('=') {
                Some(("name" | "id" | "label" | "status" | "ancestor", _)) => Ok(()),
                _ => anyhow::bail!("invalid filter {filter:?}: write name=, id=, label=, status= or ancestor="),
            }
        };
        self.filter.iter().try_for_each(|filter| known(filter))?;
        Ok(self.filter.iter().filter_map(|filter| filter.split_once('=')).collect())
    }

    fn text(&self, found: &[(Container, State)]) -> String {
        let id = |container: &Container| match self.no_trunc {
            true => container.record.id.to_string(),
            false => container.record.id.short().to_owned(),
        };
        if self.quiet {
            return found.iter().map(|(container, _)| format!("{}\n", id(container))).collect();
        }
        if self.format == Format::Json {
            return found.iter().map(|(container, state)| format!("{}\n", self.json(container, state))).collect();
        }
        let heads = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES"].map(str::to_owned);
        let mut rows = vec![heads];
        rows.extend(found.iter().map(|(container, state)| {
            let record = &container.record;
            let created = clock::ago(&record.created).unwrap_or_default();
            [
                id(container),
                record.image.clone(),
                self.command(container),
                created,
                status(state),
                record.name.to_string(),
            ]
        }));
        table(&rows)
    }

    fn command(&self, container: &Container) -> String {
        let whole = container.record.command.join(" ");
        let text = match self.no_trunc || whole.chars().count() <= COMMAND_CHARACTERS {
            true => whole,
            false => whole.chars().take(COMMAND_CHARACTERS - 1).chain(['…']).collect(),
        };
        format!("{text:?}")
    }

    fn json(&self, container: &Container, state: &State) -> Value {
        let record = &container.record;
        json!({
            "ID": record.id.as_str(),
            "Image": record.image,
            "Command": record.command,
            "CreatedAt": record.created,
            "State": state.word(),
            "Status": status(state),
            "Names": record.name.as_str(),
            "Labels": record.labels,
        })
    }
}

fn matches(container: &Container, state: &State, key: &str, value: &str) -> bool {
    let record = &container.record;
    match key {
        "name" => record.name.as_str().contains(value),
        "id" => record.id.as_str().starts_with(value),
        "status" => state.word() == value,
        "ancestor" => record.image == value || record.image_id.hex().starts_with(value.trim_start_matches("sha256:")),
        _ => match value.split_once('=') {
            Some((name, wanted)) => record.labels.get(name).is_some_and(|found| found == wanted),
            None => record.labels.contains_key(value),
        },
    }
}

/// In docker's words.
fn status(state: &State) -> String {
    match state {
        State::Created => "Created".to_owned(),
        State::Running { paused, started, fault, .. } => {
            let notes = [(*paused, " (Paused)"), (fault.is_some(), " (filesystem lost)")];
            let notes: String = notes.iter().filter(|(is, _)| *is).map(|(_, note)| *note).collect();
            let since = clock::ago(started).unwrap_or_default();
            format!("Up {}{notes}", since.trim_end_matches(" ago"))
        }
        State::Exited(exit) => format!("Exited ({}) {}", exit.code, clock::ago(&exit.finished).unwrap_or_default()),
    }
}

/// Columns three blanks apart, as docker has them.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}
