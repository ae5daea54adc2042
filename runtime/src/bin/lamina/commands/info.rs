//! `lamina info`.

use super::Place;
use super::output::{Format, say, say_json};
use clap::Args;
use lamina_runtime::oci::state::rootless;
use lamina_snapshotter::host::{self, Finding};
use lamina_snapshotter::image::Platform;
use lamina_snapshotter::snapshot::{Kind, Space};
use serde_json::json;

/// Print where images and containers are, how many, and what this host offers
#[derive(Args, Debug)]
pub struct Info {
    /// How it is written
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

impl Info {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        let root = place.root()?;
        let (images, layers) = {
            let store = place.store()?;
            let layers = store.list(&Space::lamina())?.iter().filter(|layer| layer.kind == Kind::Committed).count();
            (store.images()?.len(), layers)
        };
        let containers = place.containers()?.list()?.len();
        let findings = host::examine(&root);
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let (version, platform) = (env!("CARGO_PKG_VERSION"), Platform::host().to_string());
        if self.format == Format::Json {
            let host: Vec<_> = findings.iter().map(|(what, found)| {
                json!({ "Name": what, "State": found.mark().trim().to_lowercase(), "Text": found.text() })
            }).collect();
            say_json(&json!({ "ServerVersion": version, "Driver": "lamina", "LaminaRootDir": root, "Images": images,
                "Layers": layers, "Containers": containers, "KernelVersion": kernel, "Platform": platform,
                "Rootless": rootless(), "Host": host }))?;
            return Ok(0);
        }
        let mut text = format!(
            "Version: {version}\nContainers: {containers}\nImages: {images}\nLayers: {layers}\nStorage Driver: lamina\n\
             Lamina Root Dir: {}\nKernel Version: {kernel}\nPlatform: {platform}\nRootless: {}\nHost:\n",
            root.display(),
            rootless(),
        );
        for (what, found) in &findings {
            text.push_str(&format!("  {}  {what}: {}\n", found.mark(), found.text()));
        }
        if findings.iter().any(|(_, found)| matches!(found, Finding::Bad(_))) {
            text.push_str("Lamina cannot run here before that is mended.\n");
        }
        say(&text)?;
        Ok(0)
    }
}
