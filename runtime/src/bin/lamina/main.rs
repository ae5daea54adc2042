//! The command `lamina`: images and containers on Lamina's layers, in docker's words.
//!
//! Owns the process: arguments, standard error and the exit code. Invariant: an error is one sentence on standard error and exit code 125;
//! 126 and 127 are for a container's command that cannot be run or is not there, and all else is the container's own.

mod commands;

use clap::Parser as _;
use lamina_runtime::container;
use lamina_runtime::container::error::EXIT_OWN_ERROR;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match commands::Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => {
            let failed = answer.use_stderr();
            // Nobody is left to tell if even this cannot be printed.
            drop(answer.print());
            return if failed { ExitCode::from(EXIT_OWN_ERROR) } else { ExitCode::SUCCESS };
        }
    };
    match cli.run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("lamina: {error:#}");
            let own = error.downcast_ref::<container::Error>();
            ExitCode::from(own.map_or(EXIT_OWN_ERROR, container::Error::exit_code))
        }
    }
}
