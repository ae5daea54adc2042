//! Of which directories the files of a container or an image are made, and what a container changed of its image.
//!
//! Must not mount: everything is read by the library, whether the container runs or not. Invariant: nothing here changes a layer.

use super::error::{Error, Result};
use super::record::Container;
use crate::oci::mountpoints::{Note, Target};
use lamina_fs::layer::{Mountpoint, Mountpoints, OverrideStat};
use lamina_fs::union::{Change, Config, Union, XattrPolicy, changes};
use lamina_snapshotter::image::{Image, UnpackOptions};
use lamina_snapshotter::snapshot::Space;
use lamina_snapshotter::store::Store;
use std::path::PathBuf;

/// The directories of a root filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// The layer that takes the changes; none for an image.
    pub upper: Option<PathBuf>,
    /// Read-only layers, topmost first.
    pub lowers: Vec<PathBuf>,
    /// Where owners and modes are kept.
    pub owners: OverrideStat,
    /// What was made in the upper layer for mounts to stand on.
    pub mountpoints: Mountpoints,
}

impl Parts {
    /// Those of a container.
    ///
    /// # Errors
    /// The store's.
    pub fn of_container(store: &Store, container: &Container) -> Result<Parts> {
        let snapshot = store.stat(&Space::containers(), container.record.id.as_str())?;
        let owners = if container.record.rootless { OverrideStat::User } else { OverrideStat::Off };
        let made = Note::read(&container.note())?.into_iter().map(|(path, target)| match target {
            Target::Directory => (path, Mountpoint::Directory),
            Target::File => (path, Mountpoint::File),
        });
        let upper = Some(store.dirs().layer(snapshot.content));
        Ok(Parts { upper, lowers: store.lowers(&snapshot)?, owners, mountpoints: made.collect() })
    }

    /// Those of an image whose layers are unpacked.
    ///
    /// # Errors
    /// The store's; a layer that is not unpacked.
    pub fn of_image(store: &Store, image: &Image) -> Result<Parts> {
        let mut lowers = Vec::new();
        if let Some(chain) = image.chain() {
            let missing = || lamina_snapshotter::error::Error::NoLayer { chain: chain.to_string() };
            let top = store.layer(&chain)?.ok_or_else(missing)?;
            lowers.push(store.dirs().layer(top.content));
            lowers.extend(store.lowers(&top)?);
        }
        let owners = UnpackOptions::default().apply.owners;
        Ok(Parts { upper: None, lowers, owners, mountpoints: Mountpoints::default() })
    }

    /// Everything, topmost first, for whoever only reads.
    pub fn layers(&self) -> Vec<PathBuf> {
        self.upper.iter().chain(&self.lowers).cloned().collect()
    }

    /// These layers as one tree that can only be read. Sets this process's umask to 0.
    ///
    /// # Errors
    /// [`Error::Layers`].
    pub fn union(&self, layers: Vec<PathBuf>) -> Result<Union> {
        let xattrs = XattrPolicy { enabled: true, override_stat: self.owners };
        Union::new(Config { xattrs, ..Config::new(layers) })
            .map_err(|cause| Error::Layers { sentence: cause.to_string() })
    }

    /// What the upper directory changes, by name, without the mountpoints.
    ///
    /// # Errors
    /// [`Error::Layers`].
    pub fn changes(&self) -> Result<Vec<Change>> {
        let Some(upper) = &self.upper else { return Ok(Vec::new()) };
        let below = (!self.lowers.is_empty()).then(|| self.union(self.lowers.clone())).transpose()?;
        changes(upper, below.as_ref(), self.owners, &self.mountpoints)
            .map_err(|cause| Error::Layers { sentence: format!("{}: {cause}", upper.display()) })
    }
}
