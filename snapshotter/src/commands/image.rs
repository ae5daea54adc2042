//! `lamina-snapshotter image`: images in and out of the store.
//!
//! Owns the arguments and the words of the answer; all else is the library's. Invariant: with `--format json` standard
//! output is JSON and nothing else.

use super::Root;
use clap::{Args, Subcommand, ValueEnum};
use lamina_snapshotter::image::registry::{self, Transport};
use lamina_snapshotter::image::{self, LoadOptions, Loaded, Platform, Reference, UnpackOptions, operations};
use lamina_snapshotter::store::{ImageRecord, Store};
use lamina_snapshotter::terminal::{Bars, bytes, table};
use serde::Serialize;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Digits of an id in a table.
const SHOWN_DIGITS: usize = 12;

/// Images: load, save, import, pull, push, list, inspect, history, tag, remove, prune.
#[derive(Args, Debug)]
pub struct Image {
    #[command(flatten)]
    root: Root,
    /// How the answer is written.
    #[arg(long, value_enum, default_value = "text", global = true)]
    format: Format,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Archive {
    /// For `docker load` and everything else.
    Docker,
    /// An OCI layout in an archive.
    Oci,
    /// An OCI layout in a directory.
    Directory,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Take in an archive of `docker save`, or an OCI layout as archive or directory, and unpack it.
    Load {
        /// The archive or directory; without it, standard input.
        input: Option<PathBuf>,
        #[command(flatten)]
        choice: Choice,
    },
    /// Write images to an archive or a directory.
    Save {
        /// Their names.
        #[arg(required = true)]
        names: Vec<String>,
        /// Where to; without it, standard output.
        #[arg(long, short)]
        output: Option<PathBuf>,
        /// What is written.
        #[arg(long, value_enum, default_value = "docker")]
        archive: Archive,
    },
    /// Make an image of a root filesystem's tar.
    Import {
        /// The tar, compressed or not; - is standard input.
        input: PathBuf,
        /// The image's name.
        name: Reference,
    },
    /// Fetch an image from a registry and unpack it.
    Pull {
        /// Its name.
        name: Reference,
        #[command(flatten)]
        choice: Choice,
        #[command(flatten)]
        connection: Connection,
    },
    /// Send an image to a registry.
    Push {
        /// The image.
        name: String,
        /// The name there, where it is another.
        destination: Option<Reference>,
        #[command(flatten)]
        connection: Connection,
    },
    /// List images.
    #[command(visible_alias = "ls")]
    List,
    /// Print everything about an image.
    Inspect {
        /// Its name, or the beginning of its id.
        name: String,
    },
    /// Print how an image was built.
    History {
        /// Its name, or the beginning of its id.
        name: String,
    },
    /// Give an image another name.
    Tag {
        /// Its name, or the beginning of its id.
        name: String,
        /// The other one.
        new: String,
    },
    /// Take names away. What nothing refers to goes with the next prune.
    #[command(visible_alias = "rm")]
    Remove {
        /// The names, or beginnings of ids.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Delete blobs and layers that nothing refers to.
    Prune,
}

#[derive(Args, Debug)]
struct Choice {
    /// The image's name in the store, in place of the one it comes with.
    #[arg(long, value_name = "NAME")]
    tag: Option<Reference>,
    /// For which machine, such as linux/arm64 [default: this one].
    #[arg(long)]
    platform: Option<Platform>,
}

#[derive(Args, Debug)]
struct Connection {
    /// Speak without encryption to a registry that is not on this machine.
    #[arg(long)]
    plain_http: bool,
}

impl Connection {
    fn transport(&self) -> Transport {
        if self.plain_http { Transport::Plain } else { Transport::Secure }
    }
}

impl Image {
    /// Does what it says.
    pub fn run(self) -> anyhow::Result<()> {
        let store = Store::open(&self.root.path()?)?;
        let bars = Bars::new(false);
        let call = Call { store, json: self.format == Format::Json, bars };
        match self.verb {
            Verb::Load { input, choice } => call.load(input.as_deref(), &choice),
            Verb::Save { names, output, archive } => call.save(&names, output.as_deref(), archive),
            Verb::Import { input, name } => call.import(&input, &name),
            Verb::Pull { name, choice, connection } => call.pull(&name, &choice, connection.transport()),
            Verb::Push { name, destination, connection } => call.push(&name, destination, connection.transport()),
            Verb::List => call.list(),
            Verb::Inspect { name } => call.json(&operations::inspect(&call.store, &name)?),
            Verb::History { name } => call.history(&name),
            Verb::Tag { name, new } => {
                let name = operations::tag(&call.store, &name, &new)?.to_string();
                call.say(&name, &name)
            }
            Verb::Remove { names } => call.remove(&names),
            Verb::Prune => call.prune(),
        }
    }
}

struct Call {
    store: Store,
    json: bool,
    bars: Bars,
}

#[derive(Serialize)]
struct Named<'a> {
    reference: &'a str,
    digest: String,
}

impl Call {
    fn json(&self, answer: &impl Serialize) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(answer)?;
        text.push('\n');
        Ok(std::io::stdout().write_all(text.as_bytes())?)
    }

    fn say(&self, answer: &impl Serialize, text: &str) -> anyhow::Result<()> {
        match self.json {
            true => self.json(answer),
            false => Ok(std::io::stdout().write_all(format!("{}\n", text.trim_end()).as_bytes())?),
        }
    }

    fn loaded(&self, loaded: &[Loaded]) -> anyhow::Result<()> {
        let named = loaded.iter().map(|one| Named { reference: &one.reference, digest: one.manifest.to_string() });
        let lines: Vec<&str> = loaded.iter().map(|one| one.reference.as_str()).collect();
        self.say(&named.collect::<Vec<_>>(), &lines.join("\n"))
    }

    /// Calls `work` with the options of a load.
    fn with_options<T>(&self, choice: &Choice, work: impl FnOnce(&LoadOptions<'_>) -> T) -> T {
        let platform = choice.platform.clone().unwrap_or_else(Platform::host);
        let report = |report| self.bars.report(report);
        let unpack = UnpackOptions::default();
        work(&LoadOptions { name: choice.tag.as_ref(), platform: &platform, unpack, progress: &report })
    }

    fn load(&self, input: Option<&Path>, choice: &Choice) -> anyhow::Result<()> {
        let loaded = self.with_options(choice, |options| match input.filter(|input| *input != Path::new("-")) {
            Some(path) => image::load(&self.store, path, options),
            None => image::load_archive(&self.store, std::io::stdin(), "standard input", options),
        })?;
        self.loaded(&loaded)
    }

    fn save(&self, names: &[String], output: Option<&Path>, archive: Archive) -> anyhow::Result<()> {
        let find = |name: &String| operations::find(&self.store, name);
        let records = names.iter().map(find).collect::<Result<Vec<ImageRecord>, _>>()?;
        let report = |report| self.bars.report(report);
        let format = if archive == Archive::Docker { image::Format::Docker } else { image::Format::Oci };
        match (archive, output) {
            (Archive::Directory, Some(dir)) => Ok(image::save_directory(&self.store, &records, dir, &report)?),
            (Archive::Directory, None) => anyhow::bail!("a directory needs a name: add --output DIR"),
            (_, Some(path)) => {
                let file = File::create_new(path).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
                let saved = image::save(&self.store, &records, format, std::io::BufWriter::new(file), &report);
                if saved.is_err() {
                    std::fs::remove_file(path)?;
                }
                Ok(saved?)
            }
            (_, None) => Ok(image::save(&self.store, &records, format, std::io::stdout().lock(), &report)?),
        }
    }

    fn import(&self, input: &Path, name: &Reference) -> anyhow::Result<()> {
        let choice = Choice { tag: None, platform: None };
        let loaded = self.with_options(&choice, |options| -> anyhow::Result<Loaded> {
            if input == Path::new("-") {
                return Ok(image::import(&self.store, std::io::stdin(), name, options)?);
            }
            let file = File::open(input).map_err(|error| anyhow::anyhow!("{}: {error}", input.display()))?;
            Ok(image::import(&self.store, file, name, options)?)
        })?;
        self.loaded(&[loaded])
    }

    fn pull(&self, name: &Reference, choice: &Choice, transport: Transport) -> anyhow::Result<()> {
        let loaded = self.with_options(choice, |options| registry::pull(&self.store, name, transport, options))?;
        self.loaded(&[loaded])
    }

    fn push(&self, name: &str, destination: Option<Reference>, transport: Transport) -> anyhow::Result<()> {
        let record = operations::find(&self.store, name)?;
        let destination = destination.map_or_else(|| record.reference.parse(), Ok)?;
        let report = |report| self.bars.report(report);
        let digest = registry::push(&self.store, &record, &destination, transport, &report)?.to_string();
        let reference = destination.to_string();
        self.say(&Named { reference: &reference, digest: digest.clone() }, &format!("{reference}@{digest}"))
    }

    fn list(&self) -> anyhow::Result<()> {
        let images = operations::list(&self.store)?;
        let head = ["NAME", "ID", "PLATFORM", "BLOBS", "ON DISK"].map(str::to_owned).to_vec();
        let rows = images.iter().map(|image| {
            let name = image.reference.parse::<Reference>().map(|name| name.familiar());
            let id = image.id.trim_start_matches("sha256:").chars().take(SHOWN_DIGITS).collect();
            let name = name.unwrap_or_else(|_| image.reference.clone());
            vec![name, id, image.platform.clone(), bytes(image.blob_bytes), bytes(image.disk_bytes)]
        });
        let text = table(&std::iter::once(head).chain(rows).collect::<Vec<_>>());
        self.say(&images, &text)
    }

    fn history(&self, name: &str) -> anyhow::Result<()> {
        let steps = operations::history(&self.store, name)?;
        let head = ["CREATED", "ON DISK", "BY"].map(str::to_owned).to_vec();
        let rows = steps.iter().map(|step| {
            let disk = step.disk_bytes.map_or_else(|| "-".to_owned(), bytes);
            vec![step.created.clone().unwrap_or_default(), disk, step.created_by.clone().unwrap_or_default()]
        });
        let text = table(&std::iter::once(head).chain(rows).collect::<Vec<_>>());
        self.say(&steps, &text)
    }

    fn remove(&self, names: &[String]) -> anyhow::Result<()> {
        // All are looked up first: a name that is wrong removes nothing.
        names.iter().try_for_each(|name| operations::find(&self.store, name).map(drop))?;
        let mut removed = Vec::new();
        for name in names {
            removed.extend(operations::remove(&self.store, name)?);
        }
        self.say(&removed, &removed.join("\n"))
    }

    fn prune(&self) -> anyhow::Result<()> {
        #[derive(Serialize)]
        struct Answer {
            layers: u64,
            blobs: u64,
            bytes: u64,
        }
        let pruned = self.store.prune()?;
        let answer = Answer { layers: pruned.layers, blobs: pruned.blobs, bytes: pruned.bytes };
        let text = format!("{} layers and {} blobs, {} in all", answer.layers, answer.blobs, bytes(answer.bytes));
        self.say(&answer, &text)
    }
}
