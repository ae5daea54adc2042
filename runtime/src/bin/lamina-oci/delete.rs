//! `lamina-oci delete`.

use clap::Args;
use lamina_runtime::error::Result;
use lamina_runtime::oci::delete;
use lamina_runtime::oci::state::Root;

/// Remove what a stopped container left
#[derive(Debug, Args)]
pub struct Delete {
    /// Kill it first if it runs; succeed if there is none
    #[arg(short, long)]
    force: bool,
    /// Name of the container
    id: String,
}

impl Delete {
    pub fn run(self, root: &Root) -> Result<()> {
        delete::delete(root, &self.id, self.force)
    }
}
