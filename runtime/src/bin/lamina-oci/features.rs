//! `lamina-oci features`.

use crate::print;
use clap::Args;
use lamina_runtime::error::Result;
use lamina_runtime::oci::features;

/// Print what this runtime knows
#[derive(Debug, Args)]
pub struct Features {}

impl Features {
    pub fn run(self) -> Result<()> {
        print(&format!("{:#}", features::features()))
    }
}
