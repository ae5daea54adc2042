//! `lamina-oci resume`.

use clap::Args;
use lamina_runtime::error::Result;
use lamina_runtime::oci::pause;
use lamina_runtime::oci::state::Root;

/// Thaw all processes of a container
#[derive(Debug, Args)]
pub struct Resume {
    /// Name of the container
    id: String,
}

impl Resume {
    pub fn run(self, root: &Root) -> Result<()> {
        pause::resume(root, &self.id)
    }
}
