//! `lamina-oci state`.

use crate::print;
use clap::Args;
use lamina_runtime::error::{Error, Result};
use lamina_runtime::oci::state::Root;

/// Print the state of a container
#[derive(Debug, Args)]
pub struct State {
    /// Name of the container
    id: String,
}

impl State {
    pub fn run(self, root: &Root) -> Result<()> {
        let container = root.load(&self.id)?;
        let state = container.saved.state(container.status()?);
        let text = serde_json::to_string_pretty(&state);
        print(&text.map_err(|source| Error::Json { place: "the state of a container".into(), source })?)
    }
}
