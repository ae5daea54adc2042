//! `lamina-oci pause`.

use clap::Args;
use lamina_runtime::error::Result;
use lamina_runtime::oci::pause;
use lamina_runtime::oci::state::Root;

/// Freeze all processes of a container
#[derive(Debug, Args)]
pub struct Pause {
    /// Name of the container
    id: String,
}

impl Pause {
    pub fn run(self, root: &Root) -> Result<()> {
        pause::pause(root, &self.id)
    }
}
