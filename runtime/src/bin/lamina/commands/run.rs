//! `lamina run`.

use super::Place;
use super::create::{make, sealed};
use super::flags::Flags;
use clap::Args;
use lamina_runtime::container::{remove, start};

/// Make a container and run it
#[derive(Args, Debug)]
pub struct Run {
    /// Leave it running, and print its id
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    flags: Flags,
}

impl Run {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        sealed()?;
        let attached_terminal = self.flags.tty && self.flags.interactive && !self.detach;
        if attached_terminal && !rustix::termios::isatty(rustix::stdio::stdin()) {
            anyhow::bail!("the input device is not a TTY; leave -t out, or run it in a terminal");
        }
        let container = make(place, &self.flags)?;
        let root = place.root()?;
        if !self.detach {
            return Ok(start::attended(&root, &container)?);
        }
        match start::detached(&root, &container) {
            Ok(()) => super::print(&format!("{}\n", container.record.id)).map(|()| 0),
            Err(error) => {
                // Its monitor ended before it could be removed there.
                if container.record.remove && container.dir().exists() {
                    remove::remove(&root, &container)?;
                }
                Err(error.into())
            }
        }
    }
}
