//! The command `lamina-fs`, also under the name `fuse-overlayfs`.
//!
//! Owns the process: arguments, standard error, exit code. Invariant: an error is one sentence on stderr and exit code 1.

mod commands;

use commands::index::IndexCommand;
use commands::question::Question;
use commands::{stats, usage};
use lamina_fs::fuse::{self, background, fusermount, session};
use lamina_fs::options::help::{self, Shell};
use lamina_fs::options::{Environment, Ground, Invocation, Options, ProgramName};
use log::{LevelFilter, Log, Metadata, Record};
use std::error::Error;
use std::ffi::OsString;
use std::process::ExitCode;

/// The release of fuse-overlayfs whose command line this is; callers look at the shape of the first line.
const COMPATIBLE_WITH: &str = "1.16";

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = ProgramName::of(&arguments.next().unwrap_or_default());
    let arguments: Vec<OsString> = arguments.collect();
    let result = match answer(name, &arguments) {
        Some(text) => print(&text),
        None => run(name, arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

/// The commands that only print. They have the shape of a mount without layers, which would be an error.
fn answer(name: ProgramName, arguments: &[OsString]) -> Option<String> {
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    match (name, words.as_slice()) {
        (ProgramName::LaminaFs, ["man"]) => Some(help::manual(VERSION)),
        (ProgramName::LaminaFs, ["completions", shell]) => Shell::named(shell).map(help::completions),
        _ => None,
    }
}

fn run(name: ProgramName, arguments: Vec<OsString>) -> Result<(), Box<dyn Error>> {
    if name == ProgramName::LaminaFs
        && let Some(question) = Question::parse(&stats::FORM, &arguments)
    {
        return print(&stats::run(&question?)?);
    }
    if name == ProgramName::LaminaFs
        && let Some(question) = Question::parse(&usage::FORM, &arguments)
    {
        return print(&usage::run(&question?)?);
    }
    if name == ProgramName::LaminaFs
        && let Some(index) = IndexCommand::parse(&arguments)
    {
        return print(&index?.run()?);
    }
    let environment = Environment {
        name,
        root: nix::unistd::geteuid().is_root(),
        dot_whiteouts: std::env::var_os("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT").is_some(),
    };
    match Options::parse(arguments, &environment)? {
        Invocation::Help => print(&help::help(name.as_str())),
        Invocation::Version => print(&versions(name)),
        Invocation::Mount(options) => mount(name, &options),
    }
}

fn mount(name: ProgramName, options: &Options) -> Result<(), Box<dyn Error>> {
    start_log(options.ground);
    if !background::is_server() {
        options.warnings.iter().for_each(|warning| eprintln!("{warning}"));
    }
    match options.ground {
        Ground::Foreground | Ground::Debug => session::serve(options, || Ok(()))?,
        Ground::Background if !background::is_server() => background::start()?,
        Ground::Background => {
            background::detach(name.as_str())?;
            session::serve(options, background::report_live)?;
        }
    }
    Ok(())
}

fn print(text: &str) -> Result<(), Box<dyn Error>> {
    use std::io::Write as _;
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough, as in `lamina-fs --help | head`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// A server in the background tells its parent, which prints it.
fn fail(sentence: &str) -> ExitCode {
    if !background::is_server() || background::report(sentence).is_err() {
        eprintln!("lamina-fs: {sentence}");
    }
    ExitCode::FAILURE
}

fn versions(name: ProgramName) -> String {
    let first = match name {
        ProgramName::LaminaFs => format!("lamina-fs {VERSION}"),
        ProgramName::FuseOverlayfs => {
            format!("fuse-overlayfs: version {COMPATIBLE_WITH}-lamina-{VERSION}")
        }
    };
    let helper = fusermount::version().map_or(String::new(), |version| version + "\n");
    format!(
        "{first}\nFUSE library version {}\nusing FUSE kernel interface version {}\n{helper}",
        fuse::LIBRARY_VERSION,
        fuse::KERNEL_INTERFACE,
    )
}

/// Log records as lines on stderr.
struct StderrLog;

impl Log for StderrLog {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            eprintln!("lamina-fs: {}: {}", record.level().as_str().to_lowercase(), record.args());
        }
    }

    fn flush(&self) {}
}

fn start_log(ground: Ground) {
    let level = match ground {
        Ground::Debug => LevelFilter::Debug,
        Ground::Foreground | Ground::Background => LevelFilter::Warn,
    };
    log::set_max_level(level);
    log::set_logger(&StderrLog).expect("this is the only place that sets a logger");
}
