//! `lamina history`.

use super::Place;
use super::output::{Format, say, say_json_lines, say_table, short};
use clap::Args;
use lamina_runtime::container::clock;
use lamina_snapshotter::image::operations::{self, Step};
use lamina_snapshotter::terminal::bytes;
use serde_json::json;

/// Characters of a command that a table shows.
const COMMAND_CHARACTERS: usize = 45;

/// Print how an image was built, newest step first
#[derive(Args, Debug)]
pub struct History {
    /// Do not cut commands
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// How it is written
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Name of the image, or the beginning of its id
    image: String,
}

impl History {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        let store = place.store()?;
        let id = operations::open(&store, &operations::find(&store, &self.image)?)?.config_digest;
        let steps = operations::history(&store, &self.image)?;
        // The newest step is the image; those below were images only while it was built.
        let ids = std::iter::once(short(&id)).chain(std::iter::repeat("<missing>".to_owned()));
        let rows: Vec<(String, &Step)> = ids.zip(&steps).collect();
        match self.format {
            _ if self.quiet => say(&rows.iter().map(|(id, _)| format!("{id}\n")).collect::<String>())?,
            Format::Json => say_json_lines(&rows.iter().map(|(id, step)| self.json(id, step)).collect::<Vec<_>>())?,
            Format::Table => {
                let cells = |(id, step): &(String, &Step)| {
                    let created = step.created.as_deref().and_then(clock::ago).unwrap_or_else(|| "N/A".to_owned());
                    let (size, comment) =
                        (bytes(step.disk_bytes.unwrap_or(0)), step.comment.clone().unwrap_or_default());
                    vec![id.clone(), created, self.command(step), size, comment]
                };
                let head = ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"];
                say_table(&head, rows.iter().map(cells).collect())?;
            }
        }
        Ok(0)
    }

    /// One line, and cut unless the user wants it whole.
    fn command(&self, step: &Step) -> String {
        let text = step.created_by.as_deref().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        match text.chars().count() > COMMAND_CHARACTERS && !self.no_trunc {
            true => text.chars().take(COMMAND_CHARACTERS - 1).chain(['…']).collect(),
            false => text,
        }
    }

    fn json(&self, id: &str, step: &Step) -> serde_json::Value {
        json!({
            "ID": id,
            "CreatedAt": step.created,
            "CreatedSince": step.created.as_deref().and_then(clock::ago),
            "CreatedBy": step.created_by,
            "Comment": step.comment.clone().unwrap_or_default(),
            "DiffId": step.diff_id,
            "Size": bytes(step.disk_bytes.unwrap_or(0)),
            "SizeBytes": step.disk_bytes.unwrap_or(0),
        })
    }
}
