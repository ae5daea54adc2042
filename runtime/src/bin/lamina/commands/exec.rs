//! `lamina exec`.

use super::Place;
use super::create::sealed;
use super::flags::ProcessFlags;
use clap::Args;
use lamina_runtime::container::exec::{Wish, exec};

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
    #[command(flatten)]
    process: ProcessFlags,
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
            environment: self.process.environment()?,
            directory: self.process.workdir,
            user: self.process.user,
            terminal: self.tty,
            interactive: self.interactive,
            detach: self.detach,
        };
        Ok(exec(&container, &wish)?)
    }
}
