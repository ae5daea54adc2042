//! A container comes to be: an image and a wish become a record, a snapshot and a bundle.
//!
//! Owns the order of these. Must not start anything. Invariant: an error leaves nothing; the store is held for as long as this takes, and no longer.

use super::error::{Error, Result};
use super::list::Containers;
use super::name::Name;
use super::record::{Container, Record, replace};
use crate::bundle::{self, Bundle, Network, Wish, defaults};
use crate::oci::log::rfc3339;
use lamina_snapshotter::image::{Image, ImageError, Platform, UnpackOptions, operations, progress, unpack};
use lamina_snapshotter::snapshot::{Labels, Snapshot, Space};
use lamina_snapshotter::store::Store;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The configuration before a start adds to it.
pub(super) const BASE: &str = "base.json";
/// Of which directories of the store the root filesystem is made.
pub(super) const LAYERS: &str = "layers.json";

/// Docker's.
const STOP_SIGNAL: &str = "SIGTERM";
/// Docker's.
pub const STOP_TIMEOUT_SECONDS: u32 = 10;

/// What a container is to be, beside what its process is.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Its image, as the user named it.
    pub image: String,
    /// Its name; none makes one up.
    pub name: Option<Name>,
    /// Labels, over those of the image.
    pub labels: BTreeMap<String, String>,
    /// Removed when it ends.
    pub remove: bool,
    /// Its standard input stays open.
    pub interactive: bool,
    /// What `stop` sends, in place of the image's.
    pub stop_signal: Option<String>,
    /// How long `stop` waits.
    pub stop_timeout_seconds: Option<u32>,
}

/// The directories of a root filesystem, below the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stack {
    /// Topmost first.
    pub lowers: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
    pub index: Option<PathBuf>,
}

/// Whether the store has an image of that name.
///
/// # Errors
/// Everything but its absence.
pub fn has_image(store: &Path, name: &str) -> Result<bool> {
    match operations::find(&Store::open(store)?, name) {
        Ok(_) => Ok(true),
        Err(ImageError::NoImage { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Makes a container that never ran.
///
/// # Errors
/// [`Error::Usage`] for what cannot be done as asked; those of the image and the store.
pub fn make(root: &Path, plan: &Plan, wish: &Wish) -> Result<Container> {
    let store = Store::open(root)?;
    let record = operations::find(&store, &plan.image)?;
    let image = operations::open(&store, &record)?;
    check_platform(&plan.image, &image)?;
    if let Some(chain) = image.chain()
        && store.layer(&chain)?.is_none()
    {
        let lease = store.lease();
        unpack(&store, &lease, &image, &UnpackOptions::default(), &progress::quiet)?;
    }
    let stop_signal = plan.stop_signal.clone().or_else(|| image.config.config().as_ref()?.stop_signal().clone());
    let stop_signal = stop_signal.unwrap_or_else(|| STOP_SIGNAL.to_owned());
    crate::oci::kill::parse(&stop_signal)?;

    let claim = Containers::new(root).claim(plan.name.as_ref())?;
    let rootless = !rustix::process::geteuid().is_root();
    let config = image.config.config().as_ref();
    let ground = bundle::Ground { image: config, short_id: claim.id().short(), dir: claim.dir(), rootless };
    let bundle = bundle::build(wish, &ground)?;
    furnish(claim.dir(), &bundle, wish.network)?;
    let key = claim.id().as_str().to_owned();
    let snapshot = store.prepare_container(&key, image.chain().as_ref(), Labels::new())?;
    let committed = stack(&store, &snapshot).and_then(|stack| {
        replace(&claim.dir().join(LAYERS), &stack)?;
        let record = Record {
            id: claim.id().clone(),
            name: claim.name().clone(),
            image: plan.image.clone(),
            image_id: image.config_digest,
            chain_id: image.chain(),
            created: rfc3339(SystemTime::now()),
            content: snapshot.content,
            command: bundle.command,
            labels: bundle::labels(config, &plan.labels),
            remove: plan.remove,
            terminal: wish.terminal,
            interactive: plan.interactive,
            stop_signal,
            stop_timeout_seconds: plan.stop_timeout_seconds.unwrap_or(STOP_TIMEOUT_SECONDS),
            rootless,
        };
        claim.commit(record)
    });
    if committed.is_err() {
        store.remove(&Space::containers(), &key)?;
    }
    committed
}

fn check_platform(name: &str, image: &Image) -> Result<()> {
    let (host, found) = (Platform::host(), image.platform());
    match host.fit(&found.os, &found.architecture, found.variant.as_deref()) {
        Some(_) => Ok(()),
        None => Err(Error::usage(format!(
            "image {name} is for {found}, and this machine is {host}: get one for it, with `lamina pull --platform {host}` or from where it was built"
        ))),
    }
}

/// The directories of the store, as they lie below it: who moves the store moves its containers.
fn stack(store: &Store, snapshot: &Snapshot) -> Result<Stack> {
    let dirs = store.dirs();
    let below = |path: PathBuf| path.strip_prefix(dirs.root()).map(Path::to_owned).unwrap_or(path);
    let index = store.parent(snapshot)?.map(|parent| dirs.index(parent.content)).filter(|index| index.exists());
    Ok(Stack {
        lowers: store.lowers(snapshot)?.into_iter().map(below).collect(),
        upper: below(dirs.layer(snapshot.content)),
        work: below(dirs.work(snapshot.content)),
        index: index.map(below),
    })
}

/// The files of the container's directory.
fn furnish(dir: &Path, bundle: &Bundle, network: Network) -> Result<()> {
    replace(&dir.join(BASE), &bundle.base)?;
    let rootfs = dir.join("bundle/rootfs");
    fs::create_dir(&rootfs).map_err(Error::io("create directory", &rootfs))?;
    let name = &bundle.hostname;
    let local = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";
    let host = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (hosts, resolvers) = match network {
        Network::None => (format!("{local}127.0.0.1\t{name}\n"), String::new()),
        Network::Host => (host("/etc/hosts"), host("/etc/resolv.conf")),
    };
    let texts = [
        ("hostname", format!("{name}\n")),
        ("hosts", hosts),
        ("resolv.conf", resolvers),
        (defaults::APT_FILE.0, defaults::APT_TEXT.to_owned()),
    ];
    for (file, text) in texts {
        let path = dir.join(file);
        fs::write(&path, text).map_err(Error::io("write", &path))?;
    }
    for at in 0..bundle.anonymous.len() {
        let path = dir.join("volumes").join(at.to_string());
        fs::create_dir_all(&path).map_err(Error::io("create directory", &path))?;
    }
    Ok(())
}
