//! `lamina import`.

use super::Place;
use super::output::say;
use super::pull::Choice;
use clap::Args;
use lamina_snapshotter::image::{self, Image, Reference};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Make an image of a root filesystem's tar
#[derive(Args, Debug)]
pub struct Import {
    #[command(flatten)]
    choice: Choice,
    /// The tar, compressed or not; - is standard input
    #[arg(value_name = "FILE|-")]
    input: PathBuf,
    /// The image's name
    #[arg(value_name = "NAME[:TAG]")]
    name: Reference,
}

impl Import {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        let store = place.store()?;
        let loaded = self.choice.with_options(None, |options| -> anyhow::Result<_> {
            if self.input == Path::new("-") {
                return Ok(image::import(&store, std::io::stdin(), &self.name, options)?);
            }
            let file = File::open(&self.input).map_err(|error| anyhow::anyhow!("{}: {error}", self.input.display()))?;
            Ok(image::import(&store, file, &self.name, options)?)
        })?;
        let manifest = loaded.manifest;
        let image = self.choice.with_options(None, |options| Image::open(&store, &manifest, options.platform))?;
        say(&image.config_digest.to_string())?;
        Ok(0)
    }
}
