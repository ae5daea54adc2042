//! `lamina images`.

use super::Place;
use super::output::{Format, say, say_json_lines, say_table, short};
use clap::Args;
use lamina_runtime::container::clock;
use lamina_snapshotter::digest::Digest;
use lamina_snapshotter::image::Reference;
use lamina_snapshotter::image::operations::{self, Listed};
use lamina_snapshotter::terminal::bytes;
use serde_json::json;

/// List images
#[derive(Args, Debug)]
pub struct Images {
    /// All images; nothing is hidden without it either
    #[arg(short, long)]
    all: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// The digests of manifests too
    #[arg(long)]
    digests: bool,
    /// Do not cut ids
    #[arg(long)]
    no_trunc: bool,
    /// How the list is written
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Only those of that name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

/// An image in the columns of docker.
struct Row {
    repository: String,
    tag: String,
    digest: String,
    id: String,
    listed: Listed,
}

impl Images {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        let rows = operations::list(&place.store()?)?.into_iter().map(|listed| self.row(listed));
        let mut rows = rows.collect::<anyhow::Result<Vec<Row>>>()?;
        if let Some(name) = &self.name {
            // A name without a tag means all tags.
            let (whole, wanted) =
                (name.rsplit('/').next().is_some_and(|last| last.contains(':')), name.parse::<Reference>()?);
            rows.retain(|row| match row.listed.reference.parse::<Reference>() {
                Ok(own) if whole => own == wanted,
                Ok(own) => own.registry() == wanted.registry() && own.repository() == wanted.repository(),
                Err(_) => false,
            });
        }
        rows.sort_by(|one, other| (&other.listed.created, &one.id).cmp(&(&one.listed.created, &other.id)));
        match self.format {
            _ if self.quiet => {
                let mut ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
                ids.dedup();
                say(&ids.join("\n"))?;
            }
            Format::Json => say_json_lines(&rows.iter().map(Row::json).collect::<Vec<_>>())?,
            Format::Table if self.digests => {
                let head = ["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"];
                say_table(&head, rows.iter().map(|row| row.cells(true)).collect())?;
            }
            Format::Table => {
                let head = ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
                say_table(&head, rows.iter().map(|row| row.cells(false)).collect())?;
            }
        }
        Ok(0)
    }

    fn row(&self, listed: Listed) -> anyhow::Result<Row> {
        let name: Reference = listed.reference.parse()?;
        let tag = name.tag().unwrap_or("<none>").to_owned();
        let familiar = name.familiar();
        let repository = familiar.split('@').next().unwrap_or(&familiar);
        let repository = repository.strip_suffix(&format!(":{tag}")).unwrap_or(repository).to_owned();
        let digest = listed.id.parse::<Digest>()?;
        let id = if self.no_trunc { listed.id.clone() } else { short(&digest) };
        Ok(Row { repository, tag, digest: listed.digest.clone(), id, listed })
    }
}

impl Row {
    fn cells(&self, digest: bool) -> Vec<String> {
        let created = self.listed.created.as_deref().and_then(clock::ago).unwrap_or_else(|| "N/A".to_owned());
        let mut cells = vec![self.repository.clone(), self.tag.clone()];
        cells.extend(digest.then(|| self.digest.clone()));
        cells.extend([self.id.clone(), created, bytes(self.listed.disk_bytes)]);
        cells
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "ID": self.id,
            "Repository": self.repository,
            "Tag": self.tag,
            "Digest": self.digest,
            "CreatedAt": self.listed.created,
            "CreatedSince": self.listed.created.as_deref().and_then(clock::ago),
            "Platform": self.listed.platform,
            "Size": bytes(self.listed.disk_bytes),
            "SizeBytes": self.listed.disk_bytes,
        })
    }
}
