//! `lamina-oci ps`.

use crate::list::Format;
use crate::print;
use clap::Args;
use lamina_runtime::error::{Doing, Error, Result};
use lamina_runtime::oci::pause;
use lamina_runtime::oci::state::Root;
use std::process::Command;

/// List the processes of a container
#[derive(Debug, Args)]
pub struct Ps {
    /// How to print them
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Name of the container
    id: String,
    /// Options of ps(1), for the table
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

impl Ps {
    pub fn run(self, root: &Root) -> Result<()> {
        let processes = pause::processes(root, &self.id)?;
        if self.format == Format::Json {
            return print(&serde_json::Value::from(processes).to_string());
        }
        let options = if self.options.is_empty() { vec!["-ef".to_owned()] } else { self.options };
        let output = Command::new("ps").args(&options).output().doing(|| "start ps".into())?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut lines = text.lines();
        let header = lines.next().unwrap_or_default();
        let Some(column) = header.split_whitespace().position(|word| word == "PID") else {
            return Err(Error::invalid("ps", format!("{options:?} print no column PID")));
        };
        print(header)?;
        for line in lines {
            let pid = line.split_whitespace().nth(column).and_then(|word| word.parse::<i32>().ok());
            if pid.is_some_and(|pid| processes.contains(&pid)) {
                print(line)?;
            }
        }
        Ok(())
    }
}
