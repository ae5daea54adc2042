//! `lamina push`.

use super::Place;
use super::output::{familiar, say};
use super::pull::Connection;
use clap::Args;
use lamina_snapshotter::image::{Reference, operations, registry};
use lamina_snapshotter::terminal::Bars;

/// Send an image to a registry
#[derive(Args, Debug)]
pub struct Push {
    #[command(flatten)]
    connection: Connection,
    /// Say only what the answer is
    #[arg(short, long)]
    quiet: bool,
    /// Its name in the store, which says where it goes
    name: String,
    /// The name there, where it is another
    destination: Option<Reference>,
}

impl Push {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        let store = place.store()?;
        let record = operations::find(&store, &self.name)?;
        let destination = self.destination.map_or_else(|| record.reference.parse(), Ok)?;
        let bars = Bars::new(self.quiet);
        let report = |report| bars.report(report);
        let digest = registry::push(&store, &record, &destination, self.connection.transport(), &report)?;
        let name = destination.to_string();
        say(&if self.quiet { name } else { format!("{}: digest: {digest}", familiar(&name)) })?;
        Ok(0)
    }
}
