//! What a snapshot is, and the rules of its life.
//!
//! Owns the words and everything that can be decided without a disk. Must not know the store's tables or gRPC. Invariant: no
//! function here does I/O, but for the counting of `usage`.

pub mod filter;
pub mod gc;
pub mod lifecycle;
pub mod usage;

use crate::digest::{ChainId, DiffId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::SystemTime;

/// Labels, in a stable order.
pub type Labels = BTreeMap<String, String>;

/// Whose snapshots: keys of different spaces never meet, nor does one see the other's in a listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Space(String);

impl Space {
    /// Lamina's own; layers of images are committed here under their chain id.
    pub fn lamina() -> Space {
        Space("lamina".to_owned())
    }

    /// Those of the front end's containers, under the container's id; they stand on layers of [`Space::lamina`].
    pub fn containers() -> Space {
        Space("containers".to_owned())
    }

    /// Those that keep the layers of images which the front end has mounted, under the mountpoint; they stand on layers of [`Space::lamina`].
    pub fn views() -> Space {
        Space("views".to_owned())
    }

    /// Whether its snapshots may have parents of `other`.
    pub fn may_stand_on(&self, other: &Space) -> bool {
        self == other || [Space::containers(), Space::views()].contains(self) && *other == Space::lamina()
    }

    /// Those that containerd asked for under this plugin name. containerd removes from it whatever it does not know.
    pub fn containerd(plugin: &str) -> Space {
        Space(format!("containerd/{plugin}"))
    }

    /// As it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What can be done with a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Mounted read-only, never committed.
    View,
    /// Written to, until it is committed or removed.
    Active,
    /// Never changes; can have children.
    Committed,
}

impl Kind {
    /// In words, as filters spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::View => "view",
            Kind::Active => "active",
            Kind::Committed => "committed",
        }
    }
}

/// What a snapshot's own layer takes on disk, parents not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes allocated.
    pub size: u64,
    /// Files of every kind; hard links count once.
    pub inodes: u64,
}

/// One snapshot as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its number, never used twice.
    pub id: u64,
    /// The number of the directory that holds its layer: its own, or that of another snapshot of the same chain.
    pub content: u64,
    /// Whose it is.
    pub space: Space,
    /// The key of an active snapshot or a view, the name of a committed one.
    pub key: String,
    /// What can be done with it.
    pub kind: Kind,
    /// The number of the snapshot below.
    pub parent: Option<u64>,
    /// The name of the snapshot below, empty if there is none.
    pub parent_key: String,
    /// What callers noted on it.
    pub labels: Labels,
    /// When it was made; a commit makes anew.
    pub created: SystemTime,
    /// When its labels changed last.
    pub updated: SystemTime,
    /// What it takes; none while nobody has counted it since its commit.
    pub usage: Option<Usage>,
    /// The boot (`/proc/sys/kernel/random/boot_id`) in which it was committed, until its files are known to be on disk. A power
    /// failure before that may have cost some of them.
    #[serde(default)]
    pub unsynced: Option<String>,
    /// The layer's digest, where it is known.
    pub diff_id: Option<DiffId>,
    /// The digest of the layer and all below it, where it is known.
    pub chain_id: Option<ChainId>,
}
