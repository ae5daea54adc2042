//! `lamina prune`.

use super::Place;
use super::output::{Format, say, say_json};
use clap::Args;
use lamina_runtime::container::prune;
use lamina_snapshotter::terminal::bytes;
use serde_json::json;
use std::io::{BufRead as _, IsTerminal as _, Write as _};

/// Delete what nothing refers to: layers and blobs without an image or a container, and what a kill left
#[derive(Args, Debug)]
pub struct Prune {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// How the answer is written
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

impl Prune {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        if !self.force && std::io::stdin().is_terminal() && !confirmed()? {
            return Ok(0);
        }
        let pruned = prune::prune(&place.store()?, &place.containers()?)?;
        let deleted = pruned.store;
        if self.format == Format::Json {
            let answer = json!({ "Layers": deleted.layers, "Blobs": deleted.blobs, "Snapshots": pruned.snapshots,
                "Directories": pruned.directories, "SpaceReclaimedBytes": deleted.bytes });
            say_json(&answer)?;
            return Ok(0);
        }
        if pruned.snapshots + pruned.directories > 0 {
            say(&format!("{} snapshots and {} directories of no container", pruned.snapshots, pruned.directories))?;
        }
        let space = bytes(deleted.bytes);
        say(&format!("{} layers and {} blobs\nTotal reclaimed space: {space}", deleted.layers, deleted.blobs))?;
        Ok(0)
    }
}

fn confirmed() -> anyhow::Result<bool> {
    let question = "WARNING! This will remove all layers and blobs that no image and no container refers to.\n\
                    Are you sure you want to continue? [y/N] ";
    std::io::stderr().write_all(question.as_bytes())?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
