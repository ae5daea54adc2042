//! `lamina cp`.

use super::Place;
use clap::Args;
use lamina_runtime::container::copy::{self, Source};
use lamina_runtime::container::extract::Keep;
use lamina_runtime::container::insert::{self, Goods};
use lamina_runtime::container::parts::Parts;
use lamina_runtime::container::tree::Tree;
use lamina_runtime::oci::log;
use std::io::IsTerminal as _;
use std::path::Path;

/// Copy files between a container, whether it runs or not, and this machine; - is a tar on standard input or output
#[derive(Args, Debug)]
pub struct Cp {
    /// Keep owners; out of a container set-user-id and attributes too
    #[arg(short, long)]
    archive: bool,
    /// Follow a link that the source path ends in
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Where from; a directory with /. behind it means its content
    #[arg(value_name = "CONTAINER:PATH|PATH|-")]
    source: String,
    /// Where to
    #[arg(value_name = "PATH|CONTAINER:PATH|-")]
    destination: String,
}

impl Cp {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        let keep = if self.archive { Keep::All } else { Keep::Own };
        match (in_container(&self.source), in_container(&self.destination)) {
            (Some((name, path)), None) => self.out(place, name, Path::new(path), keep)?,
            (None, Some((name, path))) => {
                let container = place.containers()?.find(name)?;
                let (path, follow) = (Path::new(path), self.follow_link);
                let goods = match self.source.as_str() {
                    "-" => Goods::Archive,
                    source => Goods::Host { path: Path::new(source), follow },
                };
                insert::into_container(&place.root()?, &container, goods, path, keep)?;
            }
            (Some(_), Some(_)) => {
                anyhow::bail!("copying between containers is not supported: copy through this machine, or with -")
            }
            (None, None) => {
                anyhow::bail!("{} and {} name no container: write CONTAINER:PATH", self.source, self.destination)
            }
        }
        Ok(0)
    }

    fn out(&self, place: &Place, name: &str, path: &Path, keep: Keep) -> anyhow::Result<()> {
        let container = place.containers()?.find(name)?;
        let parts = Parts::of_container(&place.store()?, &container)?;
        let tree = Tree::of(&parts)?;
        let source = Source { path, follow: self.follow_link };
        let sockets = if self.destination == "-" {
            if std::io::stdout().is_terminal() {
                anyhow::bail!("cowardly refusing to write an archive to a terminal: redirect it");
            }
            copy::to_archive(&tree, &source, std::io::stdout().lock())?
        } else {
            copy::to_host(&tree, &source, Path::new(&self.destination), keep)?
        };
        if sockets > 0 {
            log::warn(&format!("{sockets} sockets were left out: no archive can hold one"));
        }
        Ok(())
    }
}

/// Container and path; a name that begins like a path of this machine is one.
fn in_container(text: &str) -> Option<(&str, &str)> {
    let (name, path) = text.split_once(':')?;
    (!name.is_empty() && !name.contains('/') && !text.starts_with('.')).then_some((name, path))
}
