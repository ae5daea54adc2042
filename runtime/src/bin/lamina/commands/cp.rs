//! `lamina cp`.

use super::Place;
use clap::Args;
use lamina_runtime::container::copy::{self, Source};
use lamina_runtime::container::extract::Keep;
use lamina_runtime::container::parts::Parts;
use lamina_runtime::container::tree::Tree;
use lamina_runtime::oci::log;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

/// Copy files out of a container, whether it runs or not; - is standard output, as a tar
#[derive(Args, Debug)]
pub struct Cp {
    /// Keep owners and set-user-id
    #[arg(short, long)]
    archive: bool,
    /// Follow a link that the source path ends in
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Where from; a directory with /. behind it means its content
    #[arg(value_name = "CONTAINER:PATH")]
    source: String,
    /// Where to: a path of this machine, or -
    #[arg(value_name = "PATH|-")]
    destination: PathBuf,
}

impl Cp {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        let Some((name, path)) = in_container(&self.source) else {
            anyhow::bail!("{} names no container: write CONTAINER:PATH", self.source)
        };
        let container = place.containers()?.find(name)?;
        let parts = Parts::of_container(&place.store()?, &container)?;
        let tree = Tree::of(&parts)?;
        let source = Source { path: Path::new(path), follow: self.follow_link };
        let sockets = if self.destination == Path::new("-") {
            if std::io::stdout().is_terminal() {
                anyhow::bail!("cowardly refusing to write an archive to a terminal: redirect it");
            }
            copy::to_archive(&tree, &source, std::io::stdout().lock())?
        } else {
            let keep = if self.archive { Keep::All } else { Keep::Own };
            copy::to_host(&tree, &source, &self.destination, keep)?
        };
        if sockets > 0 {
            log::warn(&format!("{sockets} sockets were left out: no archive can hold one"));
        }
        Ok(0)
    }
}

/// Container and path; a name that begins like a path of this machine is one.
fn in_container(text: &str) -> Option<(&str, &str)> {
    let (name, path) = text.split_once(':')?;
    (!name.is_empty() && !name.contains('/') && !text.starts_with('.')).then_some((name, path))
}
