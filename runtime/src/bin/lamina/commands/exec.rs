//! `lamina exec`.

use super::Place;
use super::create::sealed;
use super::flags::environment;
use clap::Args;
use lamina_runtime::container::exec::{Wish, exec};
use std::path::PathBuf;

/// Run one more process in a container that runs
#[derive(Args, Debug)]
pub struct Exec {
    /// Pass standard input
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Leave it running
    #[arg(short, long)]
    detach: bool,
    /// Environment variable, NAME=VALUE, or NAME for the caller's; may be repeated
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// File with one environment variable a line; may be repeated
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User, as the container names him
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Program and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Exec {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        sealed()?;
        if self.tty && self.detach {
            anyhow::bail!("-t and -d exclude each other: nobody would hold the terminal");
        }
        if self.tty && self.interactive && !rustix::termios::isatty(rustix::stdio::stdin()) {
            anyhow::bail!("the input device is not a TTY; leave -t out, or run it in a terminal");
        }
        let container = place.containers()?.find(&self.container)?;
        let wish = Wish {
            command: self.command,
            environment: environment(&self.env_file, &self.env)?,
            directory: self.workdir,
            user: self.user,
            terminal: self.tty,
            interactive: self.interactive,
            detach: self.detach,
        };
        Ok(exec(&container, &wish)?)
    }
}
