//! The command line: one verb a file.
//!
//! Owns the arguments. Must not know the store's insides.

mod bars;
mod image;
mod table;

use clap::{Args, Parser, Subcommand};
use lamina_snapshotter::store::Store;
use std::path::PathBuf;
use std::process::ExitCode;

/// Images and snapshots for containerd and for the command lamina.
#[derive(Parser, Debug)]
#[command(version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Load, save, pull, push, list and remove images.
    Image(image::Image),
}

/// Where the store is.
#[derive(Args, Debug)]
struct Root {
    /// The directory of the store [default: /var/lib/lamina; without privilege $XDG_DATA_HOME/lamina].
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

impl Root {
    fn path(&self) -> anyhow::Result<PathBuf> {
        Ok(self.root.clone().map_or_else(Store::default_root, Ok)?)
    }
}

impl Cli {
    /// Does what it says.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Image(image) => image.run()?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
