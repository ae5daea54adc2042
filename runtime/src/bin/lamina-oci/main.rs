//! The command `lamina-oci`: an OCI runtime for containerd, Podman and Buildah, with runc's command line.
//!
//! Owns flags, standard output and the exit code; one file a verb. Invariant: nothing is decided here.

mod create;
mod delete;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod pause;
mod ps;
mod resume;
mod run;
mod spec;
mod start;
mod state;
mod update;

use clap::{Parser, Subcommand, ValueEnum};
use lamina_runtime::error::Result;
use lamina_runtime::oci::state::Root;
use lamina_runtime::oci::{log, seal};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Makes and runs containers from OCI bundles.
#[derive(Debug, Parser)]
#[command(name = "lamina-oci", version = VERSION, arg_required_else_help = true)]
struct Arguments {
    /// Directory of the containers' state
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// File to write log lines to
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Form of log lines
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Write more log lines
    #[arg(long)]
    debug: bool,
    /// Read linux.cgroupsPath as SLICE:PREFIX:NAME
    #[arg(long)]
    systemd_cgroup: bool,
    /// Accepted for callers that pass it; whether we are rootless is seen without
    #[arg(long, value_name = "BOOL", hide = true)]
    rootless: Option<String>,
    #[command(subcommand)]
    verb: Verb,
}

/// What `--version` prints after the name: callers look for the version of the specification too.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\nspec: 1.3.0");

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Create(create::Create),
    Delete(delete::Delete),
    Events(events::Events),
    Exec(Box<exec::Exec>),
    Features(features::Features),
    Kill(kill::Kill),
    List(list::List),
    Pause(pause::Pause),
    Ps(ps::Ps),
    Resume(resume::Resume),
    Run(run::Run),
    Spec(spec::Spec),
    Start(start::Start),
    State(state::State),
    Update(Box<update::Update>),
}

/// What our own failure answers, and what it answers where the code is the process's otherwise.
const FAILURE: u8 = 1;
const FAILURE_OF_RUN: u8 = 255;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(answer) => {
            let failed = answer.use_stderr();
            // Nobody is left to tell if even this cannot be printed.
            drop(answer.print());
            return if failed { ExitCode::from(FAILURE) } else { ExitCode::SUCCESS };
        }
    };
    let format = match arguments.log_format {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    };
    if let Err(error) = log::open("lamina-oci", arguments.log.as_deref(), format, arguments.debug) {
        log::error(&format!("open the log file: {error}"));
        return ExitCode::from(FAILURE);
    }
    let has_code = matches!(arguments.verb, Verb::Run(_) | Verb::Exec(_));
    match obey(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log::error(&error.to_string());
            ExitCode::from(if has_code { FAILURE_OF_RUN } else { FAILURE })
        }
    }
}

fn obey(arguments: Arguments) -> Result<u8> {
    let root = Root::new(arguments.root);
    let systemd = arguments.systemd_cgroup;
    if matches!(arguments.verb, Verb::Create(_) | Verb::Run(_) | Verb::Exec(_)) {
        seal::ensure()?;
    }
    match arguments.verb {
        Verb::Create(verb) => verb.run(&root, systemd),
        Verb::Delete(verb) => verb.run(&root),
        Verb::Events(verb) => verb.run(&root),
        Verb::Exec(verb) => return verb.run(&root),
        Verb::Features(verb) => verb.run(),
        Verb::Kill(verb) => verb.run(&root),
        Verb::List(verb) => verb.run(&root),
        Verb::Pause(verb) => verb.run(&root),
        Verb::Ps(verb) => verb.run(&root),
        Verb::Resume(verb) => verb.run(&root),
        Verb::Run(verb) => return verb.run(&root, systemd),
        Verb::Spec(verb) => verb.run(),
        Verb::Start(verb) => verb.run(&root),
        Verb::State(verb) => verb.run(&root),
        Verb::Update(verb) => verb.run(&root),
    }
    .map(|()| 0)
}

/// Prints a line on standard output; that it could not be is an error of the verb.
fn print(text: &str) -> Result<()> {
    use lamina_runtime::error::Doing;
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.write_all(b"\n")).doing(|| "write to standard output".into())
}
