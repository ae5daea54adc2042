//! `lamina kill`.

use super::Place;
use super::each::each;
use clap::Args;
use lamina_runtime::container::stop;

/// Send a signal to containers
#[derive(Args, Debug)]
pub struct Kill {
    /// Name or number of the signal
    #[arg(short, long, default_value = "KILL", value_name = "SIGNAL")]
    signal: String,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Kill {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        each(place, &self.containers, |container| Ok(stop::signal(container, &self.signal)?))
    }
}
