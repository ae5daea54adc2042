//! `lamina rm`.

use super::Place;
use super::each::each;
use clap::Args;
use lamina_runtime::container::{Error, remove, stop};

/// Remove containers
#[derive(Args, Debug)]
pub struct Rm {
    /// Kill those that run
    #[arg(short, long)]
    force: bool,
    /// Accepted for docker's sake: anonymous volumes always go with their container
    #[arg(short, long)]
    volumes: bool,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Rm {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        let root = place.root()?;
        each(place, &self.containers, |container| {
            if container.state()?.runs() {
                if !self.force {
                    return Err(Error::Running { name: container.record.name.to_string() }.into());
                }
                stop::kill(container)?;
            }
            match remove::remove(&root, container) {
                // One of `run --rm`, which its monitor has removed.
                Err(Error::NoSuchContainer { .. }) if container.record.remove => Ok(()),
                outcome => Ok(outcome?),
            }
        })
    }
}
