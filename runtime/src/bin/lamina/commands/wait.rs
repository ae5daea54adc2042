//! `lamina wait`.

use super::Place;
use clap::Args;
use lamina_runtime::container::stop;

/// Wait until containers have ended, and print their exit codes
#[derive(Args, Debug)]
pub struct Wait {
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Wait {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        let containers = place.containers()?;
        for name in &self.containers {
            let code = stop::wait(&containers.find(name)?)?;
            super::print(&format!("{code}\n"))?;
        }
        Ok(0)
    }
}
