//! `lamina save`.
//!
//! Invariant: the named file is replaced by one rename, when all of the archive is written.

use super::Place;
use clap::{Args, ValueEnum};
use lamina_snapshotter::image::{self, operations};
use lamina_snapshotter::store::{ImageRecord, Store};
use lamina_snapshotter::terminal::Bars;
use std::fs::{self, File};
use std::io::{BufWriter, IsTerminal as _};
use std::path::{Path, PathBuf};

/// Write images to an archive
#[derive(Args, Debug)]
pub struct Save {
    /// Where to [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What is written
    #[arg(long, value_enum, default_value = "docker-archive")]
    format: Archive,
    /// No progress bars
    #[arg(short, long)]
    quiet: bool,
    /// Names of images, or beginnings of ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Archive {
    /// For `docker load` and everything else
    #[value(name = "docker-archive")]
    Docker,
    /// An OCI layout in an archive
    #[value(name = "oci-archive")]
    Oci,
    /// An OCI layout in a directory
    #[value(name = "oci-dir")]
    Directory,
}

impl Save {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        let store = place.store()?;
        let find = |name: &String| operations::find(&store, name);
        let records = self.images.iter().map(find).collect::<Result<Vec<ImageRecord>, _>>()?;
        match &self.output {
            Some(path) if self.format == Archive::Directory => {
                let bars = Bars::new(self.quiet);
                image::save_directory(&store, &records, path, &|report| bars.report(report))?;
            }
            None if self.format == Archive::Directory => anyhow::bail!("a directory needs a name: add --output DIR"),
            Some(path) => self.replace(&store, &records, path)?,
            None if std::io::stdout().is_terminal() => {
                anyhow::bail!("cowardly refusing to save to a terminal: use -o FILE or redirect")
            }
            None => self.write(&store, &records, std::io::stdout().lock())?,
        }
        Ok(0)
    }

    fn replace(&self, store: &Store, records: &[ImageRecord], path: &Path) -> anyhow::Result<()> {
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{}", std::process::id()));
        let draft = PathBuf::from(draft);
        let named = |error| anyhow::anyhow!("cannot write {}: {error}", path.display());
        let file = File::create_new(&draft).map_err(named)?;
        let written = self.write(store, records, BufWriter::new(file));
        let published = written.and_then(|()| fs::rename(&draft, path).map_err(named));
        if published.is_err() {
            fs::remove_file(&draft)?;
        }
        published
    }

    fn write(&self, store: &Store, records: &[ImageRecord], out: impl std::io::Write) -> anyhow::Result<()> {
        let bars = Bars::new(self.quiet);
        let format = if self.format == Archive::Oci { image::Format::Oci } else { image::Format::Docker };
        Ok(image::save(store, records, format, out, &|report| bars.report(report))?)
    }
}
