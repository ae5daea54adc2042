//! `lamina df`.

use super::Place;
use super::output::{Format, say_json, say_table};
use clap::Args;
use lamina_runtime::container::space::{self, Space};
use lamina_snapshotter::terminal::bytes;
use serde_json::json;

/// Print what images and containers take on disk, what they share, and what `lamina prune` would free
#[derive(Args, Debug)]
pub struct Df {
    /// Every image and container by itself
    #[arg(short, long)]
    verbose: bool,
    /// How it is written
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

impl Df {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        let space = space::measure(&place.store()?, &place.containers()?)?;
        if self.format == Format::Json {
            say_json(&document(&space))?;
            return Ok(0);
        }
        let row = |name: &str, total: usize, active: usize, size: u64, reclaimable: u64| {
            vec![name.to_owned(), total.to_string(), active.to_string(), bytes(size), bytes(reclaimable)]
        };
        let (layers, blobs, containers) = (&space.layers, &space.blobs, &space.containers);
        let reclaimable = space.prunable.bytes;
        let rows = vec![
            row("Layers", layers.total, layers.active, layers.bytes, space.layers_prunable()),
            row("Blobs", blobs.total, blobs.active, blobs.bytes, reclaimable - space.layers_prunable()),
            row(
                "Containers",
                containers.len(),
                containers.iter().filter(|container| container.runs).count(),
                space.container_bytes(),
                0,
            ),
            vec!["Total".into(), String::new(), String::new(), bytes(space.bytes()), bytes(reclaimable)],
        ];
        say_table(&["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"], rows)?;
        if self.verbose {
            let cells = |image: &space::ImageSpace| {
                let own = bytes(image.unique_bytes);
                vec![
                    image.name.clone(),
                    image.id.clone(),
                    bytes(image.bytes),
                    bytes(image.shared_bytes()),
                    own,
                    image.containers.to_string(),
                ]
            };
            let head = ["IMAGE", "IMAGE ID", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"];
            say_table(&head, space.images.iter().map(cells).collect())?;
            let cells = |container: &space::ContainerSpace| {
                vec![container.id.clone(), container.name.clone(), container.image.clone(), bytes(container.bytes)]
            };
            say_table(&["CONTAINER ID", "NAME", "IMAGE", "SIZE"], containers.iter().map(cells).collect())?;
        }
        Ok(0)
    }
}

fn document(space: &Space) -> serde_json::Value {
    let images: Vec<_> = space.images.iter().map(|image| {
        json!({ "Name": image.name, "ID": image.id, "SizeBytes": image.bytes, "SharedSizeBytes": image.shared_bytes(),
            "UniqueSizeBytes": image.unique_bytes, "Containers": image.containers })
    }).collect();
    let containers: Vec<_> = space.containers.iter().map(|container| {
        json!({ "ID": container.id, "Name": container.name, "Image": container.image, "Running": container.runs, "SizeBytes": container.bytes })
    }).collect();
    json!({
        "Layers": { "Total": space.layers.total, "Active": space.layers.active, "SizeBytes": space.layers.bytes,
            "ReclaimableBytes": space.layers_prunable() },
        "Blobs": { "Total": space.blobs.total, "Active": space.blobs.active, "SizeBytes": space.blobs.bytes,
            "ReclaimableBytes": space.prunable.bytes - space.layers_prunable() },
        "ContainersSizeBytes": space.container_bytes(),
        "SizeBytes": space.bytes(),
        "ReclaimableBytes": space.prunable.bytes,
        "Images": images,
        "Containers": containers,
    })
}
