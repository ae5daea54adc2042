//! `lamina-oci events`.

use crate::print;
use clap::Args;
use lamina_runtime::error::{Error, Result};
use lamina_runtime::oci::events;
use lamina_runtime::oci::state::Root;
use std::time::Duration;

/// Print what a container uses, every few seconds
#[derive(Debug, Args)]
pub struct Events {
    /// Once, then end
    #[arg(long)]
    stats: bool,
    /// Time between two lines, such as 500ms, 5s or 1m
    #[arg(long, value_name = "TIME", default_value = "5s")]
    interval: String,
    /// Name of the container
    id: String,
}

impl Events {
    pub fn run(self, root: &Root) -> Result<()> {
        let interval = interval(&self.interval)?;
        if self.stats {
            return print(&events::statistics(root, &self.id)?.to_string());
        }
        while let Some(line) = events::sample(root, &self.id)? {
            print(&line.to_string())?;
            std::thread::sleep(interval);
        }
        Ok(())
    }
}

fn interval(text: &str) -> Result<Duration> {
    let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit_ms = match unit {
        "ms" => 1,
        "s" | "" => 1000,
        "m" => 60_000,
        _ => 0,
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms)) {
        Some(ms) if ms > 0 => Ok(Duration::from_millis(ms)),
        _ => Err(Error::invalid("--interval", format!("{text:?} is no time such as 5s"))),
    }
}
