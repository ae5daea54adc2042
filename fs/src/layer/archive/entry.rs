//! One entry of an archive, decoded.
//!
//! Invariant: names are as the archive has them: whoever writes them to disk must still check where they lead.

use super::fault::Fault;
use super::number;
use super::records::Records;
use super::sparse::Piece;
use crate::sys::stat::Timestamp;

/// Attributes that every entry has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits, 0..=0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// Access time, where the archive has one.
    pub atime: Option<Timestamp>,
    /// Extended attributes, in the archive's order.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file, whose data follows.
    File {
        /// Its size, holes included.
        size: u64,
        /// Where the data lies, for a sparse file.
        pieces: Option<Vec<Piece>>,
    },
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink {
        /// Where it leads, in the words of the archive.
        target: Vec<u8>,
    },
    /// Another name of an earlier entry.
    HardLink {
        /// That entry.
        target: Vec<u8>,
    },
    /// A fifo or device.
    Special {
        /// The type bits.
        format: u32,
        /// The device number.
        rdev: u64,
    },
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Its attributes.
    pub attributes: Attributes,
    pub(super) map_in_data: bool,
}

impl Entry {
    /// An entry to be written.
    pub fn new(path: Vec<u8>, kind: Kind, attributes: Attributes) -> Entry {
        Entry { path, kind, attributes, map_in_data: false }
    }

    pub(super) fn decode(header: &tar::Header, records: Records) -> Result<Entry, Fault> {
        let old = header.as_old();
        let path = records.name().cloned().unwrap_or_else(|| header.path_bytes().into_owned());
        let text = |bytes: &[u8]| !bytes.is_empty() && !bytes.contains(&0);
        if !text(&path) {
            return Err(Fault::Text);
        }
        let kind = kind(header, &records, &path)?;
        if let Kind::Symlink { target } | Kind::HardLink { target } = &kind
            && !text(target)
        {
            return Err(Fault::Text);
        }
        let id = |record: Option<u64>, field: &[u8], what| {
            let id = record.or_else(|| number::field(field)).ok_or(Fault::Number(what))?;
            // The largest value means "keep" to chown(2).
            u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or(Fault::TooLarge(what))
        };
        let seconds = number::signed(&old.mtime).ok_or(Fault::Number("time"))?;
        let mode = number::field(&old.mode).ok_or(Fault::Number("mode"))?;
        let attributes = Attributes {
            mode: (mode & 0o7777) as u32,
            uid: id(records.uid, &old.uid, "owner")?,
            gid: id(records.gid, &old.gid, "group")?,
            mtime: records.mtime.unwrap_or(Timestamp { seconds, nanoseconds: 0 }),
            atime: records.atime,
            xattrs: records.xattrs,
        };
        Ok(Entry { path, kind, attributes, map_in_data: records.map_in_data })
    }
}

fn kind(header: &tar::Header, records: &Records, path: &[u8]) -> Result<Kind, Fault> {
    let link = || records.link.clone().or_else(|| header.link_name_bytes().map(|name| name.into_owned()));
    let file = || Kind::File {
        size: records.real_size.unwrap_or(0),
        pieces: records.real_size.map(|_| records.pieces.clone()),
    };
    Ok(match header.as_old().linkflag[0] {
        // Before POSIX a directory was a file whose name ends in a slash.
        0 if path.ends_with(b"/") => Kind::Dir,
        b'0' | 0 | b'7' => file(),
        b'S' => {
            let gnu = header.as_gnu().ok_or(Fault::SparseMap)?;
            let size = number::field(&gnu.realsize).ok_or(Fault::Number("size"))?;
            Kind::File { size, pieces: Some(Vec::new()) }
        }
        b'1' => Kind::HardLink { target: link().unwrap_or_default() },
        b'2' => Kind::Symlink { target: link().unwrap_or_default() },
        b'3' => Kind::Special { format: libc::S_IFCHR, rdev: device(header)? },
        b'4' => Kind::Special { format: libc::S_IFBLK, rdev: device(header)? },
        b'5' => Kind::Dir,
        b'6' => Kind::Special { format: libc::S_IFIFO, rdev: 0 },
        other => return Err(Fault::Type(other)),
    })
}

fn device(header: &tar::Header) -> Result<u64, Fault> {
    let Some(ustar) = header
        .as_ustar()
        .map(|ustar| (&ustar.dev_major, &ustar.dev_minor))
        .or_else(|| header.as_gnu().map(|gnu| (&gnu.dev_major, &gnu.dev_minor)))
    else {
        return Err(Fault::Number("device"));
    };
    let part = |field: &[u8], max: u32| match number::field(field) {
        None => Err(Fault::Number("device")),
        Some(value) => u32::try_from(value).ok().filter(|value| *value <= max).ok_or(Fault::TooLarge("device number")),
    };
    // MINORBITS of the kernel's kdev_t.h.
    Ok(rustix::fs::makedev(part(ustar.0, (1 << 12) - 1)?, part(ustar.1, (1 << 20) - 1)?))
}
