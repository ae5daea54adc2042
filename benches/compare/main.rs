//! `compare`: Lamina and its rivals side by side. This file is glue: it reads the command line and hands over.

mod cli;
mod contender;
mod corpus;
mod layers;
mod measure;
mod mounted;
mod report;
mod run;
mod workload;

use anyhow::Result;
use clap::Parser;

fn main() -> Result<()> {
    let arguments = cli::Arguments::parse();
    match arguments.command {
        Some(cli::Command::Probe(probe)) => run::probe(&probe),
        None if arguments.run.list => {
            run::list();
            Ok(())
        }
        None => run::compare(&arguments.run),
    }
}
