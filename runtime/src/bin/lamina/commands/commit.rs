//! `lamina commit`.

use super::Place;
use super::output::say;
use clap::Args;
use lamina_runtime::container::Container;
use lamina_runtime::container::freeze;
use lamina_runtime::container::parts::Parts;
use lamina_runtime::oci::log;
use lamina_snapshotter::image::{self, CommitOptions, Edit, Image, Platform, Reference, UnpackOptions, operations};
use lamina_snapshotter::store::Store;
use std::time::SystemTime;

/// Make an image of a container and what it changed
#[derive(Args, Debug)]
pub struct Commit {
    /// Who is answerable
    #[arg(short, long)]
    author: Option<String>,
    /// What there is to say of it
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Change the configuration, in the words of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, WORKDIR, VOLUME, STOPSIGNAL
    #[arg(short, long, value_name = "CHANGE")]
    change: Vec<Edit>,
    /// Stop a running container meanwhile
    #[arg(short, long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pause: bool,
    /// ID or name
    container: String,
    /// The new image's name [default: localhost/committed with the beginning of its id as tag]
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<Reference>,
}

impl Commit {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        let container = place.containers()?.find(&self.container)?;
        // Before the store is held: it forks.
        let frozen = if self.pause { Some(freeze::freeze(&container)?) } else { None };
        let store = place.store()?;
        let parts = Parts::of_container(&store, &container)?;
        let Some(upper) = &parts.upper else { anyhow::bail!("the container has no layer of its own") };
        let base = base(&store, &container)?;
        let options = CommitOptions {
            base: &base,
            upper,
            owners: parts.owners,
            mountpoints: &parts.mountpoints,
            unpack: UnpackOptions::default(),
            created: &log::rfc3339(SystemTime::now()),
            created_by: &container.record.command.join(" "),
            author: self.author.as_deref(),
            message: self.message.as_deref(),
            edits: &self.change,
            name: self.name.as_ref(),
        };
        let committed = image::commit(&store, &options)?;
        drop(frozen);
        if committed.sockets_left_out > 0 {
            log::warn(&format!("{} sockets are not in the image: no archive can hold one", committed.sockets_left_out));
        }
        say(&committed.id.to_string())?;
        Ok(0)
    }
}

/// The image that a container was made of, by whatever name it has now.
fn base(store: &Store, container: &Container) -> anyhow::Result<Image> {
    for record in store.images()? {
        let image = Image::open(store, &record.manifest, &Platform::host());
        if let Ok(image) = image
            && image.config_digest == container.record.image_id
        {
            return Ok(image);
        }
    }
    let id = container.record.image_id;
    match operations::find(store, &id.hex()) {
        Ok(record) => Ok(operations::open(store, &record)?),
        Err(_) => anyhow::bail!(
            "the image {} of container {}, {id}, has no name any more: load or pull it again, then commit",
            container.record.image,
            container.record.name
        ),
    }
}
