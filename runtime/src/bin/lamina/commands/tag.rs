//! `lamina tag`.

use super::Place;
use clap::Args;
use lamina_snapshotter::image::operations;

/// Give an image one more name
#[derive(Args, Debug)]
pub struct Tag {
    /// Name of the image, or the beginning of its id
    source: String,
    /// The new name; one that another image has goes over to this one
    target: String,
}

impl Tag {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        operations::tag(&place.store()?, &self.source, &self.target)?;
        Ok(0)
    }
}
