//! `lamina inspect`.

use super::Place;
use super::output::{familiar, say_json};
use clap::{Args, ValueEnum};
use lamina_runtime::container::parts::Parts;
use lamina_runtime::container::{Error, inspect};
use lamina_snapshotter::image::operations::{self, Inspected};
use serde_json::{Value, json};

/// Print everything about containers and images
#[derive(Args, Debug)]
pub struct Inspect {
    /// Look for this kind only
    #[arg(long = "type", value_enum)]
    kind: Option<Kind>,
    /// IDs and names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Container,
    Image,
}

impl Inspect {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        let found = self.names.iter().map(|name| self.object(place, name)).collect::<anyhow::Result<Vec<Value>>>()?;
        say_json(&found)?;
        Ok(0)
    }

    fn object(&self, place: &Place, name: &str) -> anyhow::Result<Value> {
        let store = place.store()?;
        if self.kind != Some(Kind::Image) {
            match place.containers()?.find(name) {
                Ok(container) => {
                    let mut document = inspect::document(&container)?;
                    // A removal that was interrupted may have taken the snapshot already.
                    if let Ok(parts) = Parts::of_container(&store, &container) {
                        document["GraphDriver"] = json!({ "Name": "lamina", "Data": data(&parts) });
                    }
                    return Ok(document);
                }
                Err(Error::NoSuchContainer { .. }) if self.kind.is_none() => {}
                Err(error) => return Err(error.into()),
            }
        }
        match operations::inspect(&store, name) {
            Ok(inspected) => Ok(image(&inspected)),
            Err(lamina_snapshotter::image::ImageError::NoImage { .. }) if self.kind.is_none() => {
                anyhow::bail!("No such object: {name}")
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The directories, as docker has those of overlayfs.
fn data(parts: &Parts) -> Value {
    let lowers: Vec<String> = parts.lowers.iter().map(|path| path.display().to_string()).collect();
    json!({ "LowerDir": lowers.join(":"), "UpperDir": parts.upper })
}

/// As docker prints an image; what only Lamina knows is under `Lamina`.
fn image(inspected: &Inspected) -> Value {
    let (listed, config) = (&inspected.listed, &inspected.config);
    let repository = |name: &String| {
        let name = familiar(name);
        // A colon before the last slash is that of a port.
        let end = name.rfind(':').filter(|at| !name[*at..].contains('/')).unwrap_or(name.len());
        format!("{}@{}", &name[..end], listed.digest)
    };
    json!({
        "Id": listed.id,
        "RepoTags": inspected.names.iter().map(|name| familiar(name)).collect::<Vec<_>>(),
        "RepoDigests": inspected.names.iter().map(repository).collect::<Vec<_>>(),
        "Created": listed.created,
        "Author": config.get("author"),
        "Architecture": config.get("architecture"),
        "Os": config.get("os"),
        "Config": config.get("config"),
        "Size": listed.disk_bytes,
        "RootFS": { "Type": "layers", "Layers": config.pointer("/rootfs/diff_ids") },
        "Lamina": { "BlobBytes": listed.blob_bytes, "Layers": inspected.layers },
    })
}
