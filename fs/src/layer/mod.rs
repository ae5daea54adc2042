//! One layer: a directory tree on disk, and what it says of a name. Knows nothing of other layers.
//!
//! Invariant: only `Upper` has verbs that change a layer.

mod apply;
mod archive;
mod blob;
mod diff;
mod lower;
mod marks;
mod mountpoints;
mod overlap;
mod override_stat;
mod setup;
mod upper;
mod usage_record;
mod whiteout;
mod work;

pub use crate::sys::stat::Timestamp;
pub use apply::{Applied, ApplyError, ApplyOptions, LAYER_BYTES_MAX, LAYER_INODES_MAX, Limits, Usage, apply, inherit};
pub use archive::{
    Archive, ArchiveError, ArchiveWriter, Attributes as ArchiveAttributes, Entry as ArchiveEntry, Fault,
    Kind as ArchiveKind, Name, Piece,
};
pub use blob::{
    Blob, BlobDigests, Compression, EXPANSION_BYTES_MAX, EXPANSION_FREE_BYTES, EXPANSION_RATIO_MAX, Expansion,
    read_blob,
};
pub use diff::{DiffError, Diffed, diff};
pub use lower::{DirMarks, Entry, Layer, LayerId};
pub use mountpoints::{MOUNTPOINT_DIR_MODE, MOUNTPOINT_FILE_MODE, Mountpoint, Mountpoints};
pub use override_stat::{Overridden, OverrideStat, is_override_xattr, show_security, store_security};
pub use setup::SetupError;
pub use upper::{Node, Upper, UpperConfig, WhiteoutStyle};
pub use usage_record::UsageRecord;
pub use whiteout::{LayerName, is_private_xattr, is_reserved};
pub use work::{Temporary, WorkDir, list};

pub(crate) use overlap::check_overlap;
