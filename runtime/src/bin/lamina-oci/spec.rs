//! `lamina-oci spec`.

use clap::Args;
use lamina_runtime::error::{Doing, Result};
use lamina_runtime::oci::spec::CONFIG;
use lamina_runtime::oci::template;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

/// Write a config.json to begin with
#[derive(Debug, Args)]
pub struct Spec {
    /// Directory to write it to
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// For a container of the calling user's own
    #[arg(long)]
    rootless: bool,
}

impl Spec {
    pub fn run(self) -> Result<()> {
        let own = || (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let text = format!("{:#}\n", template::document(self.rootless.then(own)));
        let path = self.bundle.join(CONFIG);
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).doing(|| format!("write {}", path.display()))
    }
}
