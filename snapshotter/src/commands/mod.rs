//! The command line: one verb a file.
//!
//! Owns the arguments. Must not know the store's insides.

mod config;
mod doctor;
mod image;
mod notify;
mod serve;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
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
    Image(Box<image::Image>),
    /// Answer containerd on a unix socket.
    Serve(serve::Serve),
    /// Print the configuration that tells containerd of this snapshotter.
    Config(config::Config),
    /// Say what this host supports, and what is missing.
    Doctor(Root),
    /// Check that everything in the store is whole, and name what is not. Reads every blob.
    Fsck(Root),
    /// Print completions for a shell.
    Completions {
        /// bash, zsh, fish, elvish or powershell.
        shell: clap_complete::Shell,
    },
    /// Print a manual page.
    Man,
}

/// Where the store is.
#[derive(Args, Debug)]
struct Root {
    /// The directory of the store [default: /var/lib/lamina; without privilege $XDG_DATA_HOME/lamina].
    #[arg(long, value_name = "DIR", global = true)]
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
            Command::Serve(serve) => serve.run()?,
            Command::Config(config) => return config.run(),
            Command::Doctor(root) => return doctor::run(&root.path()?),
            Command::Fsck(root) => {
                let root = root.path()?;
                let damage = Store::open(&root)?.fsck()?;
                damage.iter().for_each(|what| println!("{what}"));
                if !damage.is_empty() {
                    println!("{}: {} faults", root.display(), damage.len());
                    return Ok(ExitCode::FAILURE);
                }
                println!("{}: no fault", root.display());
            }
            Command::Completions { shell } => {
                let mut command = Cli::command();
                clap_complete::generate(shell, &mut command, "lamina-snapshotter", &mut std::io::stdout());
            }
            Command::Man => clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout())?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
