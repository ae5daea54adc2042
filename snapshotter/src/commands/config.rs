//! `lamina-snapshotter config`: what to write into containerd's configuration.
//!
//! Owns the text for each release. Invariant: what is printed can be appended to a configuration of that release, or be one.

use super::{Root, serve};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
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
fn quoted(path: &std::path::Path) -> String {
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

    #[test]
    fn each_release_is_told_in_its_own_words() {
        let of = |release| text(release, "\"/s\"", "\"/r\"");
        assert!(of(Release::V1_6).starts_with("version = 2\n") && !of(Release::V1_6).contains("exports"));
        assert!(of(Release::V1_7).contains("exports") && of(Release::V1_7).contains("grpc.v1.cri"));
        assert!(of(Release::V2).starts_with("version = 3\n") && of(Release::V2).contains("unpack_config"));
    }

    #[test]
    fn a_path_cannot_end_its_quotes() {
        assert_eq!(quoted(std::path::Path::new("/a\"b\\")), r#""/a\"b\\""#);
    }
}
