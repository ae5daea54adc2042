//! `lamina-snapshotter config`: what to write into containerd's configuration.
//!
//! Owns the text for each release. Invariant: what is printed is a whole configuration of that release, or one that another imports; without its
//! first line it can be appended to one.

use super::{Root, serve};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Args, Debug)]
pub struct Config {
    #[command(flatten)]
    root: Root,
    /// The socket that `serve` listens on.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The release of containerd.
    #[arg(long, value_enum, default_value_t = Release::V2)]
    containerd: Release,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Release {
    #[value(name = "1.6")]
    V1_6,
    #[value(name = "1.7")]
    V1_7,
    #[value(name = "2")]
    V2,
}

impl Config {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let socket = self.socket.map_or_else(serve::default_socket, Ok)?;
        let text = text(self.containerd, &quoted(&socket), &quoted(&self.root.path()?));
        print!("{text}");
        Ok(ExitCode::SUCCESS)
    }
}

/// As a basic string of TOML.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\""))
}

fn text(release: Release, socket: &str, root: &str) -> String {
    let version = if release == Release::V2 { 3 } else { 2 };
    let plugin =
        format!("version = {version}\n\n[proxy_plugins.lamina]\n  type = \"snapshot\"\n  address = {socket}\n");
    // containerd 1.6 does not know `exports`.
    let exports = format!("  [proxy_plugins.lamina.exports]\n    root = {root}\n");
    let cri = "\n# What Kubernetes runs; ctr and nerdctl take --snapshotter lamina.\n";
    match release {
        Release::V1_6 => {
            format!("{plugin}{cri}[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  snapshotter = \"lamina\"\n")
        }
        Release::V1_7 => {
            format!(
                "{plugin}{exports}{cri}[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  snapshotter = \"lamina\"\n"
            )
        }
        Release::V2 => format!(
            "{plugin}{exports}{cri}[plugins.\"io.containerd.cri.v1.images\"]\n  snapshotter = \"lamina\"\n\n\
             # Without it, ctr and nerdctl cannot unpack what they pull for this snapshotter.\n\
             [[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]\n  platform = \"linux\"\n  snapshotter = \"lamina\"\n"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value of a document with its path, in the order of the paths.
    fn values(text: &str) -> Vec<(String, String)> {
        fn add(path: &str, item: &toml_edit::Item, found: &mut Vec<(String, String)>) {
            match item {
                toml_edit::Item::Table(table) => {
                    table.iter().for_each(|(key, item)| add(&format!("{path}/{key}"), item, found));
                }
                toml_edit::Item::ArrayOfTables(tables) => {
                    let items = tables.iter().flat_map(|table| table.iter());
                    items.for_each(|(key, item)| add(&format!("{path}[]/{key}"), item, found));
                }
                item => {
                    let text = item.as_str().map(str::to_owned);
                    let number = item.as_integer().map(|number| number.to_string());
                    found.push((path.to_owned(), text.or(number).expect("a string or a number")));
                }
            }
        }
        let document: toml_edit::DocumentMut = text.parse().expect("TOML");
        let mut found = Vec::new();
        add("", document.as_item(), &mut found);
        found.sort();
        found
    }

    /// The keys as containerd documents them: docs/PLUGINS.md and docs/cri/config.md of each release; for `unpack_config` its issue 11606.
    #[test]
    fn each_release_is_told_its_own_keys_and_no_others() {
        let plugin = |version| vec![("/version", version), ("/proxy_plugins/lamina/type", "snapshot")];
        let address = ("/proxy_plugins/lamina/address", "/run/\"s\\");
        let root = ("/proxy_plugins/lamina/exports/root", "/r");
        let cri = ("/plugins/io.containerd.grpc.v1.cri/containerd/snapshotter", "lamina");
        let images = ("/plugins/io.containerd.cri.v1.images/snapshotter", "lamina");
        let unpack = "/plugins/io.containerd.transfer.v1.local/unpack_config[]";
        let (on, by) = (format!("{unpack}/platform"), format!("{unpack}/snapshotter"));
        for (release, version, own) in [
            (Release::V1_6, "2", vec![address, cri]),
            (Release::V1_7, "2", vec![address, root, cri]),
            (Release::V2, "3", vec![address, root, images, (&on, "linux"), (&by, "lamina")]),
        ] {
            let mut expected: Vec<_> = [plugin(version), own].concat();
            expected.sort_unstable();
            let printed = text(release, &quoted(Path::new("/run/\"s\\")), &quoted(Path::new("/r")));
            let found = values(&printed);
            let found: Vec<_> = found.iter().map(|(path, value)| (path.as_str(), value.as_str())).collect();
            assert_eq!(found, expected, "{release:?}");
        }
    }
}
