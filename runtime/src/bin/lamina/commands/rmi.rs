//! `lamina rmi`.
//!
//! Invariant: an image that a container was made of keeps its last name, unless forced; the container's layers stay in any case.

use super::Place;
use super::output::{familiar, say, short};
use clap::Args;
use lamina_runtime::container::Container;
use lamina_snapshotter::image::{Reference, operations};
use lamina_snapshotter::store::{ImageRecord, Store};

/// Remove names of images, and what nothing refers to then
#[derive(Args, Debug)]
pub struct Rmi {
    /// Also if a container was made of it, or by an id with several names
    #[arg(short, long)]
    force: bool,
    /// Keep blobs and layers until the next `lamina prune`
    #[arg(long)]
    no_prune: bool,
    /// Names of images, or beginnings of ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl Rmi {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        let containers = place.containers()?.list()?;
        let store = place.store()?;
        // All are looked at first: one that is wrong removes nothing.
        self.images.iter().try_for_each(|image| self.may_remove(&store, image, &containers))?;
        let mut lines = Vec::new();
        for image in &self.images {
            let id = operations::open(&store, &operations::find(&store, image)?)?.config_digest;
            lines.extend(operations::remove(&store, image)?.iter().map(|name| format!("Untagged: {}", familiar(name))));
            if with_id(&store, &id)?.is_empty() {
                lines.push(format!("Deleted: {id}"));
            }
        }
        if !self.no_prune {
            store.prune()?;
        }
        say(&lines.join("\n"))?;
        Ok(0)
    }

    fn may_remove(&self, store: &Store, image: &str, containers: &[Container]) -> anyhow::Result<()> {
        let record = operations::find(store, image)?;
        let id = operations::open(store, &record)?.config_digest;
        let names = with_id(store, &id)?.len();
        let by_name = image.parse::<Reference>().is_ok_and(|name| name.to_string() == record.reference);
        let user = containers.iter().find(|container| container.record.image_id == id);
        match user {
            _ if self.force => Ok(()),
            _ if !by_name && names > 1 => anyhow::bail!(
                "conflict: unable to delete {image} (must be forced) - image is referenced in multiple repositories"
            ),
            Some(user) if !by_name || names == 1 => anyhow::bail!(
                "conflict: unable to remove {image} (must force) - container {} is using its referenced image {}; remove the container first",
                user.record.id.short(),
                short(&id),
            ),
            _ => Ok(()),
        }
    }
}

/// The names of an image.
fn with_id(store: &Store, id: &lamina_snapshotter::digest::Digest) -> anyhow::Result<Vec<ImageRecord>> {
    let mut found = Vec::new();
    for record in store.images()? {
        if operations::open(store, &record)?.config_digest == *id {
            found.push(record);
        }
    }
    Ok(found)
}
