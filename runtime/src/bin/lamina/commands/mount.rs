//! `lamina mount` and `lamina umount`.

use super::Place;
use super::output::say;
use clap::Args;
use lamina_runtime::container::parts::Parts;
use lamina_runtime::container::{Error, look};
use lamina_snapshotter::image::operations;
use std::path::{Path, PathBuf};

/// Show the files of a container or an image at a directory, read-only; print the directory
#[derive(Args, Debug)]
pub struct Mount {
    /// A container, or else an image
    name: String,
    /// Where [default: a directory of the store]
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Mount {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        let root = place.root()?;
        let store = place.store()?;
        let dir = self.dir.unwrap_or_else(|| look::default_dir(&root, &self.name));
        let (parts, chain) = match place.containers()?.find(&self.name) {
            // Its own snapshot keeps its layers.
            Ok(container) => (Parts::of_container(&store, &container)?, None),
            Err(Error::NoSuchContainer { .. }) => {
                let image = operations::open(&store, &operations::find(&store, &self.name)?)?;
                (Parts::of_image(&store, &image)?, image.chain())
            }
            Err(error) => return Err(error.into()),
        };
        say(&look::mount(&store, &parts, chain.as_ref(), &dir)?.display().to_string())?;
        Ok(0)
    }
}

/// Take away what `lamina mount` has made
#[derive(Args, Debug)]
pub struct Umount {
    /// What was mounted, or where
    #[arg(value_name = "NAME|DIR")]
    what: String,
}

impl Umount {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        let root = place.root()?;
        let default = look::default_dir(&root, &self.what);
        let dir = if default.exists() { default } else { Path::new(&self.what).to_owned() };
        look::unmount(&root, &dir)?;
        Ok(0)
    }
}
