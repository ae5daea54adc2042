//! A tar changeset becomes a layer's directory (OCI image-spec, layer.md).
//!
//! Owns what an entry does to the directory, and the order of system calls. Must not know blobs, images or other layers:
//! attributes of parent directories that the changeset does not mention are taken over afterwards, by `inherit`. Invariant:
//! every name is looked up as one component below a descriptor and no link is ever followed, so nothing is written outside
//! the given directory, whatever the archive says.

mod dress;
mod error;
mod inherit;
mod path;
mod place;
mod usage;
mod write;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;

pub use error::ApplyError;
pub use inherit::inherit;
pub use usage::Usage;

use super::archive::{Archive, Entry, Kind, Name};
use super::override_stat::OverrideStat;
use super::whiteout::LayerName;
use dress::Dresser;
use path::Components;
use place::Place;
use std::ffi::OsStr;
use std::io::BufRead;
use std::os::fd::BorrowedFd;

/// The most that one layer may hold; a changeset that goes beyond is refused where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files, as they are written.
    pub bytes_max: u64,
    /// Files of every kind.
    pub inodes_max: u64,
}

/// Bytes of the files of one layer, unless the caller says otherwise: larger than any image that is in use.
pub const LAYER_BYTES_MAX: u64 = 256 << 30;
/// Files of one layer, unless the caller says otherwise.
pub const LAYER_INODES_MAX: u64 = 20_000_000;

impl Default for Limits {
    fn default() -> Self {
        Limits { bytes_max: LAYER_BYTES_MAX, inodes_max: LAYER_INODES_MAX }
    }
}

/// How a changeset is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ApplyOptions {
    /// `Off`: owners, modes and devices are the files' own, as root or the root of a user namespace may make them. Else they
    /// are kept in this attribute, and nothing but regular files, directories and links is made.
    pub owners: OverrideStat,
    /// What is too much.
    pub limits: Limits,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// Space and files, as a walk would count them.
    pub usage: Usage,
    /// Directories that were made because something lies in them, parents first: `inherit` gives them the attributes that
    /// the layers below have. The layer's root is the empty path.
    pub implicit: Vec<Vec<u8>>,
    /// Extended attributes that were left out: bookkeeping of union filesystems, and what this user may not set here.
    pub xattrs_left_out: u64,
}

/// Writes a changeset into `root`, an empty directory that nobody else uses.
///
/// Of names and of the targets of hard links, leading slashes and `.` components are stripped; `..` is refused. The last of
/// several entries with one name counts. Directories that no entry names are made with mode 0755 and owner 0:0.
///
/// # Errors
/// A sentence that names the entry. What was written until then stays: the caller removes the directory.
pub fn apply(root: BorrowedFd<'_>, changeset: impl BufRead, options: &ApplyOptions) -> Result<Applied, ApplyError> {
    let mut applier = Applier {
        archive: Archive::new(changeset),
        place: Place::new(root, Dresser::new(root, options.owners)?),
        limits: options.limits,
        piled: 0,
    };
    while let Some(entry) = applier.archive.next_entry()? {
        applier.enter(&entry).map_err(|cause| cause.at(&entry.path))?;
    }
    applier.finish()
}

struct Applier<'a, R> {
    archive: Archive<R>,
    place: Place<'a>,
    limits: Limits,
    /// Entries so far, for the limit: an archive of nothing but directories named twice must end too.
    piled: u64,
}

impl<R: BufRead> Applier<'_, R> {
    fn enter(&mut self, entry: &Entry) -> Result<(), ApplyError> {
        self.piled += 1;
        if self.piled > self.limits.inodes_max {
            return Err(ApplyError::TooManyFiles { max: self.limits.inodes_max });
        }
        let components = Components::parse(&entry.path)?;
        let Some((name, parents)) = components.split_last() else {
            return match entry.kind {
                Kind::Dir => self.place.dress_root(&entry.attributes),
                _ => Err(ApplyError::RootNotDirectory),
            };
        };
        match LayerName::parse(name) {
            LayerName::Plain(name) => self.plain(entry, parents, name),
            LayerName::Opaque => self.place.go(parents)?.make_opaque(),
            LayerName::Whiteout(hidden) if path::is_dots(hidden) => Err(ApplyError::WhiteoutOfDots),
            LayerName::Whiteout(hidden) => self.place.go(parents)?.whiteout(hidden),
            // What AUFS kept beside its layers, found in images of that time.
            LayerName::Bookkeeping => Ok(()),
        }
    }

    fn plain(&mut self, entry: &Entry, parents: &[&OsStr], name: &OsStr) -> Result<(), ApplyError> {
        let place = self.place.go(parents)?;
        let attributes = &entry.attributes;
        match &entry.kind {
            Kind::Dir => place.dir(name, attributes),
            Kind::Symlink { target } => place.symlink(name, target, attributes),
            Kind::Special { format, rdev } => place.special(name, *format, *rdev, attributes),
            Kind::HardLink { target } => {
                let from = Components::parse(target).map_err(|_| ApplyError::LinkOut { target: Name::new(target) })?;
                place.hard_link(name, &from, target)
            }
            Kind::File { size, pieces } => {
                let file = place.file(name, attributes)?;
                let room = self.limits.bytes_max.saturating_sub(place.usage().bytes);
                let limit = write::Limit { room, max: self.limits.bytes_max };
                let bytes = write::data(&mut self.archive, &file, *size, pieces.as_deref(), limit)?;
                place.finish_file(&file, bytes, attributes)
            }
        }
    }

    fn finish(self) -> Result<Applied, ApplyError> {
        let (usage, implicit, xattrs_left_out) = self.place.finish()?;
        drain(self.archive.into_inner())?;
        if xattrs_left_out > 0 {
            tracing::debug!(xattrs_left_out, "extended attributes of a layer were left out");
        }
        Ok(Applied { usage, implicit, xattrs_left_out })
    }
}

/// Reads what follows the archive: it belongs to the layer's digest.
fn drain(mut rest: impl BufRead) -> Result<(), ApplyError> {
    loop {
        match rest.fill_buf() {
            Ok([]) => return Ok(()),
            Ok(chunk) => {
                let bytes = chunk.len();
                rest.consume(bytes);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(crate::layer::archive::ArchiveError::Read(error).into()),
        }
    }
}
