//! `lamina-oci run`.

use crate::create::Common;
use clap::Args;
use lamina_runtime::error::Result;
use lamina_runtime::oci::create;
use lamina_runtime::oci::state::Root;

/// Make and start a container, wait for its end, delete it
#[derive(Debug, Args)]
pub struct Run {
    /// Leave it running
    #[arg(short, long)]
    detach: bool,
    /// Do not delete it when it ends
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    common: Common,
}

impl Run {
    pub fn run(self, root: &Root, systemd_cgroup: bool) -> Result<u8> {
        let (detach, keep) = (self.detach, self.keep);
        create::run(root, &self.common.options(systemd_cgroup), detach, keep).map(|code| code as u8)
    }
}
