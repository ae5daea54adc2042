//! Snapshot -> mounts.
//!
//! Owns what a caller is told to mount. Must not know gRPC. Invariants: each mounted snapshot is a superblock of its own, so that
//! no two files that differ have one identity; a view is served without an upper layer, so nothing can write to it.

mod process;
mod server;
pub mod table;

pub use server::Servers;

use crate::snapshot::{Kind, Snapshot};
use std::path::Path;

/// One mount, as containerd is told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `bind` or `overlay`.
    pub kind: &'static str,
    /// What is mounted.
    pub source: String,
    /// As in fstab(5).
    pub options: Vec<String>,
}

/// How a snapshot is shown to whoever mounts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// As the pieces of an overlay: who unpacks a layer writes straight into its upper directory, with the kernel's whiteouts.
    Pieces,
    /// The directory itself: nothing is below it.
    Bare,
    /// Through a server of its own.
    Served,
}

/// How this snapshot is shown.
pub fn show(snapshot: &Snapshot) -> Show {
    match (snapshot.kind, snapshot.parent) {
        // Also that of an empty view: it must be read-only in fact.
        (Kind::View | Kind::Committed, _) => Show::Served,
        (Kind::Active, None) => Show::Bare,
        (Kind::Active, Some(_)) if is_unpacked(&snapshot.key) => Show::Pieces,
        (Kind::Active, Some(_)) => Show::Served,
    }
}

/// Whether containerd makes this snapshot to unpack a layer: `[NAMESPACE/NUMBER/]extract-UNIQUE sha256:HEX`, and nobody else
/// does (`snapshots.UnpackKeyFormat`).
pub fn is_unpacked(key: &str) -> bool {
    let own = key.splitn(3, '/').nth(2).unwrap_or(key);
    own.starts_with("extract-") && own.split_once(" sha256:").is_some_and(|(_, hex)| hex.len() == 64)
}

/// The answer for [`Show::Bare`] and [`Show::Served`].
pub fn bind(source: &Path, read_only: bool) -> Mount {
    let access = if read_only { "ro" } else { "rw" };
    Mount { kind: "bind", source: text(source), options: vec!["rbind".into(), access.into()] }
}

/// The answer for [`Show::Pieces`]. containerd does not mount it; it writes to `upperdir`, and looks into `lowerdir` for the
/// attributes of directories that the tar does not name.
pub fn pieces(upper: &Path, work: &Path, lowers: &[impl AsRef<Path>]) -> Mount {
    let lowers: Vec<String> = lowers.iter().map(|lower| text(lower.as_ref())).collect();
    let options = vec![
        format!("workdir={}", text(work)),
        format!("upperdir={}", text(upper)),
        format!("lowerdir={}", lowers.join(":")),
    ];
    Mount { kind: "overlay", source: "overlay".into(), options }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_containerds_own_unpack_keys_are_taken_for_such() {
        let hex = "0".repeat(64);
        for key in [format!("k8s.io/50/extract-231584148-3QGH sha256:{hex}"), format!("extract-1 sha256:{hex}")] {
            assert!(is_unpacked(&key), "{key}");
        }
        for key in ["default/7/extract-me", "default/7/extract-x sha256:00", "extract-", "a/b/c/extract-1 sha256:"] {
            assert!(!is_unpacked(key), "{key}");
        }
    }

    #[test]
    fn pieces_name_the_layers_topmost_first() {
        let mount = pieces(Path::new("/s/3/fs"), Path::new("/s/3/work"), &["/s/2/fs", "/s/1/fs"]);
        assert_eq!(mount.options, ["workdir=/s/3/work", "upperdir=/s/3/fs", "lowerdir=/s/2/fs:/s/1/fs"]);
    }
}
