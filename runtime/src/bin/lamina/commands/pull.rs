//! `lamina pull` and what taking images in has in common.

use super::Place;
use super::output::{familiar, say};
use clap::Args;
use lamina_snapshotter::image::registry::{self, Transport};
use lamina_snapshotter::image::{LoadOptions, Loaded, Platform, Reference, UnpackOptions};
use lamina_snapshotter::store::Store;
use lamina_snapshotter::terminal::Bars;

/// How a registry is spoken to.
#[derive(Args, Debug)]
pub struct Connection {
    /// Speak without encryption to a registry that is not on this machine
    #[arg(long)]
    plain_http: bool,
}

impl Connection {
    pub fn transport(&self) -> Transport {
        if self.plain_http { Transport::Plain } else { Transport::Secure }
    }
}

/// For which machine, and how loudly.
#[derive(Args, Debug)]
pub struct Choice {
    /// For which machine, such as linux/arm64 [default: this one]
    #[arg(long)]
    platform: Option<Platform>,
    /// Say only what the answer is
    #[arg(short, long)]
    pub quiet: bool,
}

impl Choice {
    /// Calls `work` with the options of a load.
    pub fn with_options<T>(&self, name: Option<&Reference>, work: impl FnOnce(&LoadOptions<'_>) -> T) -> T {
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        let bars = Bars::new(self.quiet);
        let report = |report| bars.report(report);
        work(&LoadOptions { name, platform: &platform, unpack: UnpackOptions::default(), progress: &report })
    }
}

/// Fetch an image from a registry
#[derive(Args, Debug)]
pub struct Pull {
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    connection: Connection,
    /// Its name
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: Reference,
}

impl Pull {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        let store = place.store()?;
        let before = store.image(&self.name.to_string()).ok().map(|image| image.manifest);
        let loaded = fetch(&store, &self.name, &self.choice, self.connection.transport())?;
        if self.choice.quiet {
            say(&loaded.reference)?;
            return Ok(0);
        }
        let (digest, name) = (loaded.manifest, familiar(&loaded.reference));
        let status = match before {
            Some(same) if same == digest => "Image is up to date for",
            _ => "Downloaded newer image for",
        };
        say(&format!("Digest: {digest}\nStatus: {status} {name}\n{}", loaded.reference))?;
        Ok(0)
    }
}

fn fetch(store: &Store, name: &Reference, choice: &Choice, transport: Transport) -> anyhow::Result<Loaded> {
    Ok(choice.with_options(None, |options| registry::pull(store, name, transport, options))?)
}
