//! `lamina load`.

use super::Place;
use super::output::{familiar, say};
use super::pull::Choice;
use clap::Args;
use lamina_snapshotter::image::{self, Reference};
use std::io::IsTerminal as _;
use std::path::PathBuf;

/// Take in an archive of images: of `docker save`, or an OCI layout, compressed or not
#[derive(Args, Debug)]
pub struct Load {
    /// The archive, or the directory of an OCI layout [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The image's name, in place of the one it comes with
    #[arg(long, value_name = "NAME")]
    tag: Option<Reference>,
    #[command(flatten)]
    choice: Choice,
}

impl Load {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        if self.input.is_none() && std::io::stdin().is_terminal() {
            anyhow::bail!("standard input is a terminal: name the archive with -i FILE, or pipe it in");
        }
        let store = place.store()?;
        let loaded = self.choice.with_options(self.tag.as_ref(), |options| match &self.input {
            Some(path) => image::load(&store, path, options),
            None => image::load_archive(&store, std::io::stdin(), "standard input", options),
        })?;
        let lines = loaded.iter().map(|one| format!("Loaded image: {}\n", familiar(&one.reference)));
        say(&lines.collect::<String>())?;
        Ok(0)
    }
}
