//! `lamina diff`.

use super::Place;
use super::output::{Format, say, say_json_lines};
use clap::Args;
use lamina_fs::union::ChangeKind;
use lamina_runtime::container::parts::Parts;
use serde_json::json;

/// List what a container changed of its image: A added, C changed, D deleted
#[derive(Args, Debug)]
pub struct Diff {
    /// How the list is written
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// ID or name
    container: String,
}

impl Diff {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        let container = place.containers()?.find(&self.container)?;
        // The layers stay without the store, as long as the container does.
        let parts = Parts::of_container(&place.store()?, &container)?;
        let changes = parts.changes()?;
        let letter = |kind| match kind {
            ChangeKind::Added => "A",
            ChangeKind::Changed => "C",
            ChangeKind::Deleted => "D",
        };
        if self.format == Format::Json {
            // As docker's interface has them.
            let number = |kind| match kind {
                ChangeKind::Changed => 0,
                ChangeKind::Added => 1,
                ChangeKind::Deleted => 2,
            };
            let object = |change: &lamina_fs::union::Change| json!({ "Path": change.path.to_string_lossy(), "Kind": number(change.kind), "Letter": letter(change.kind) });
            say_json_lines(&changes.iter().map(object).collect::<Vec<_>>())?;
            return Ok(0);
        }
        let lines = changes.iter().map(|change| format!("{} {}\n", letter(change.kind), change.path.display()));
        say(&lines.collect::<String>())?;
        Ok(0)
    }
}
