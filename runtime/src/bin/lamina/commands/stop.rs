//! `lamina stop`.

use super::Place;
use super::each::each;
use clap::Args;
use lamina_runtime::container::stop;

/// Ask containers to end, and kill those that do not
#[derive(Args, Debug)]
pub struct Stop {
    /// Seconds to wait before it is killed
    #[arg(short, long, value_name = "SECONDS")]
    time: Option<u32>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Stop {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        each(place, &self.containers, |container| Ok(stop::stop(container, self.time)?))
    }
}
