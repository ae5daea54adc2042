//! The command line: one verb a file.
//!
//! Owns the arguments and the words of the answers. Must not decide anything about images or containers. Invariant: a verb opens the store for
//! one change and drops it before anything forks or waits, as one process at a time holds it.

mod commit;
mod completions;
mod cp;
mod create;
mod df;
mod diff;
mod each;
mod exec;
mod flags;
mod history;
mod images;
mod import;
mod info;
mod inspect;
mod kill;
mod load;
mod logs;
mod mount;
mod output;
mod prune;
mod ps;
mod pull;
mod push;
mod rm;
mod rmi;
mod run;
mod save;
mod start;
mod stop;
mod tag;
mod version;
mod wait;

use clap::{Args, Parser, Subcommand};
use lamina_runtime::container::Containers;
use lamina_snapshotter::store::Store;
use std::path::PathBuf;

/// Run containers on layers that are mounted in user space.
#[derive(Parser, Debug)]
#[command(name = "lamina", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  lamina load -i debian.tar                     take in an archive of `docker save`, or an OCI layout
  lamina run -it --name work debian:12          run a shell in it
  lamina diff work                              what changed: A added, C changed, D deleted
  lamina commit -m 'with tools' work tools:1    make an image of that
  lamina cp work:/etc/os-release -              read a file, as a tar
  lamina df -v                                  what everything takes, and what is shared

Exit codes: 125 for an error of lamina itself, 126 and 127 for a command that cannot be run or is not there, else the command's own.";

/// Where images and containers are kept.
#[derive(Args, Debug)]
pub struct Place {
    /// Directory of images and containers [default: /var/lib/lamina; without privilege $XDG_DATA_HOME/lamina]
    #[arg(long, value_name = "DIR", env = "LAMINA_STORE", global = true)]
    store: Option<PathBuf>,
    /// Say more on standard error
    #[arg(long, global = true)]
    debug: bool,
}

impl Place {
    /// The directory of the store, by which containers and their monitors find it again.
    pub fn root(&self) -> anyhow::Result<PathBuf> {
        Ok(std::path::absolute(self.store.clone().map_or_else(Store::default_root, Ok)?)?)
    }

    /// The store, held until it is dropped; others wait meanwhile.
    pub fn store(&self) -> anyhow::Result<Store> {
        Ok(Store::open(&self.root()?)?)
    }

    /// The containers; needs no hold of the store.
    pub fn containers(&self) -> anyhow::Result<Containers> {
        Ok(Containers::new(&self.root()?))
    }
}

#[derive(Subcommand, Debug)]
enum Verb {
    Commit(commit::Commit),
    Completions(completions::Completions),
    Cp(cp::Cp),
    Create(Box<create::Create>),
    Df(df::Df),
    Diff(diff::Diff),
    Exec(exec::Exec),
    History(history::History),
    Images(images::Images),
    Import(import::Import),
    Info(info::Info),
    Inspect(inspect::Inspect),
    Kill(kill::Kill),
    Load(load::Load),
    Logs(logs::Logs),
    Man(completions::Man),
    Mount(mount::Mount),
    Prune(prune::Prune),
    Ps(ps::Ps),
    Pull(pull::Pull),
    Push(push::Push),
    Rm(rm::Rm),
    Rmi(rmi::Rmi),
    Run(Box<run::Run>),
    Save(save::Save),
    Start(start::Start),
    Stop(stop::Stop),
    Wait(wait::Wait),
    Tag(tag::Tag),
    Umount(mount::Umount),
    Version(version::Version),
}

impl Cli {
    /// Does what it says; answers the exit code.
    pub fn run(self) -> anyhow::Result<u8> {
        let place = &self.place;
        lamina_runtime::oci::log::open("lamina", None, lamina_runtime::oci::log::Format::Text, place.debug)?;
        match self.verb {
            Verb::Commit(verb) => verb.run(place),
            Verb::Completions(verb) => verb.run(),
            Verb::Cp(verb) => verb.run(place),
            Verb::Create(verb) => verb.run(place),
            Verb::Df(verb) => verb.run(place),
            Verb::Diff(verb) => verb.run(place),
            Verb::Exec(verb) => verb.run(place),
            Verb::History(verb) => verb.run(place),
            Verb::Images(verb) => verb.run(place),
            Verb::Import(verb) => verb.run(place),
            Verb::Info(verb) => verb.run(place),
            Verb::Inspect(verb) => verb.run(place),
            Verb::Kill(verb) => verb.run(place),
            Verb::Load(verb) => verb.run(place),
            Verb::Logs(verb) => verb.run(place),
            Verb::Man(verb) => verb.run(),
            Verb::Mount(verb) => verb.run(place),
            Verb::Prune(verb) => verb.run(place),
            Verb::Ps(verb) => verb.run(place),
            Verb::Pull(verb) => verb.run(place),
            Verb::Push(verb) => verb.run(place),
            Verb::Rm(verb) => verb.run(place),
            Verb::Rmi(verb) => verb.run(place),
            Verb::Run(verb) => verb.run(place),
            Verb::Save(verb) => verb.run(place),
            Verb::Start(verb) => verb.run(place),
            Verb::Stop(verb) => verb.run(place),
            Verb::Wait(verb) => verb.run(place),
            Verb::Tag(verb) => verb.run(place),
            Verb::Umount(verb) => verb.run(place),
            Verb::Version(verb) => verb.run(),
        }
    }
}

/// Prints on standard output; that it could not be is an error of the verb.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}
