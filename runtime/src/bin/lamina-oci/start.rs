//! `lamina-oci start`.

use clap::Args;
use lamina_runtime::error::Result;
use lamina_runtime::oci::start;
use lamina_runtime::oci::state::Root;

/// Start a container that was made
#[derive(Debug, Args)]
pub struct Start {
    /// Name of the container
    id: String,
}

impl Start {
    pub fn run(self, root: &Root) -> Result<()> {
        start::start(root, &self.id)
    }
}
