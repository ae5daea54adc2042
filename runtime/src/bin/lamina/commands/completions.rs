//! `lamina completions` and `lamina man`.

use super::Cli;
use super::output::say;
use clap::{Args, CommandFactory as _};

/// Print completions for a shell
#[derive(Args, Debug)]
pub struct Completions {
    /// bash, zsh, fish, elvish or powershell
    shell: clap_complete::Shell,
}

impl Completions {
    pub fn run(self) -> anyhow::Result<u8> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "lamina", &mut text);
        say(&String::from_utf8_lossy(&text))?;
        Ok(0)
    }
}

/// Print a manual page: of lamina, or of one of its verbs
#[derive(Args, Debug)]
pub struct Man {
    /// The verb
    verb: Option<String>,
}

impl Man {
    pub fn run(self) -> anyhow::Result<u8> {
        let mut command = Cli::command();
        command.build();
        let page = match &self.verb {
            None => command,
            Some(verb) => match command.find_subcommand(verb) {
                Some(found) => found.clone(),
                None => anyhow::bail!("{verb:?} is no verb: `lamina --help` lists them"),
            },
        };
        let mut text = Vec::new();
        clap_mangen::Man::new(page).render(&mut text)?;
        say(&String::from_utf8_lossy(&text))?;
        Ok(0)
    }
}
