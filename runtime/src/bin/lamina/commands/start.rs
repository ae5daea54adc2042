//! `lamina start`.

use super::Place;
use super::create::sealed;
use super::each::each;
use anyhow::bail;
use clap::Args;
use lamina_runtime::container::start;

/// Run containers that do not run
#[derive(Args, Debug)]
pub struct Start {
    /// Stay with it, and show what it says
    #[arg(short, long)]
    attach: bool,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Start {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        sealed()?;
        let root = place.root()?;
        if self.attach {
            let [name] = self.containers.as_slice() else {
                bail!("you cannot start and attach multiple containers at once")
            };
            return Ok(start::attended(&root, &place.containers()?.find(name)?)?);
        }
        each(place, &self.containers, |container| match container.state()?.runs() {
            true => Ok(()),
            false => Ok(start::detached(&root, container)?),
        })
    }
}
