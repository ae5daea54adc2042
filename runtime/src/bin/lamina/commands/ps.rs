//! `lamina ps`.

use super::Place;
use super::output::{Format, familiar, say, say_json_lines, say_table};
use clap::Args;
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
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
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
        self.show(&found)?;
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

    fn show(&self, found: &[(Container, State)]) -> anyhow::Result<()> {
        let id = |container: &Container| match self.no_trunc {
            true => container.record.id.to_string(),
            false => container.record.id.short().to_owned(),
        };
        if self.quiet {
            return say(&found.iter().map(|(container, _)| id(container)).collect::<Vec<_>>().join("\n"));
        }
        if self.format == Format::Json {
            return say_json_lines(
                &found.iter().map(|(container, state)| self.json(container, state)).collect::<Vec<_>>(),
            );
        }
        let row = |(container, state): &(Container, State)| {
            let record = &container.record;
            let created = clock::ago(&record.created).unwrap_or_default();
            let (image, name) = (familiar(&record.image), record.name.to_string());
            vec![id(container), image, self.command(container), created, status(state), name]
        };
        let head = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES"];
        say_table(&head, found.iter().map(row).collect())
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
