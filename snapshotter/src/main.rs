//! The command `lamina-snapshotter`.
//!
//! Owns the process: arguments, log, exit code. Invariant: an error is one sentence on standard error and exit code 1.

mod commands;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    match commands::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lamina-snapshotter: {error:#}");
            ExitCode::FAILURE
        }
    }
}
