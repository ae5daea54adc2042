//! `lamina-oci kill`.

use clap::Args;
use lamina_runtime::error::Result;
use lamina_runtime::oci::kill;
use lamina_runtime::oci::state::Root;

/// Send a signal to a container
#[derive(Debug, Args)]
pub struct Kill {
    /// To all of its processes
    #[arg(short, long)]
    all: bool,
    /// Name of the container
    id: String,
    /// Number or name
    #[arg(default_value = "SIGTERM")]
    signal: String,
}

impl Kill {
    pub fn run(self, root: &Root) -> Result<()> {
        kill::kill(root, &self.id, kill::parse(&self.signal)?, self.all)
    }
}
