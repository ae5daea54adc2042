//! READDIR and READDIRPLUS.
//!
//! Owns how a listing is cut into replies. Must not know how listings are merged. Invariants: the offset of an entry is its
//! place in the listing plus one; every lookup that is counted for an entry reached the kernel or was forgotten again.

use super::convert::{entry_attributes, file_type, unnumbered_entry};
use super::errno::errno;
use super::reply::{GENERATION, attempt, attribute_timeout};
use crate::error::Result;
use crate::union::{InodeNumber, Kind, ListedEntry, Listing, Union};
use fuser::{INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use std::sync::Arc;
use std::time::Duration;

/// Answers READDIR: names, numbers and kinds.
pub(super) fn read(union: &Union, handle: u64, offset: u64, mut reply: ReplyDirectory) {
    let listing = match snapshot(union, handle, offset) {
        Ok(listing) => listing,
        Err(error) => return reply.error(errno(error)),
    };
    for (next, entry) in from(&listing, offset) {
        if reply.add(INodeNo(entry.st_ino), next, file_type(entry.kind), &entry.name) {
            break;
        }
    }
    reply.ok();
}

/// Answers READDIRPLUS: each name with what LOOKUP would say of it.
pub(super) fn read_plus(
    union: &Union,
    directory: InodeNumber,
    handle: u64,
    offset: u64,
    timeout: Duration,
    mut reply: ReplyDirectoryPlus,
) {
    let listing = match snapshot(union, handle, offset) {
        Ok(listing) => listing,
        Err(error) => return reply.error(errno(error)),
    };
    let mut empty = true;
    for (next, entry) in from(&listing, offset) {
        if &*entry.name == "." || &*entry.name == ".." {
            // Not counted: the kernel takes no reference to these two and reads no attributes of them.
            let attributes = unnumbered_entry(entry.st_ino, Kind::Directory);
            let number = INodeNo(entry.st_ino);
            if reply.add(number, next, &entry.name, &timeout, &attributes, GENERATION) {
                break;
            }
            empty = false;
            continue;
        }
        let found = match attempt("lookup", || union.lookup(directory, &entry.name)) {
            Ok(Some(found)) => found,
            // Removed since the listing was taken.
            Ok(None) => continue,
            // What is already in the reply is right; the next request meets the error first thing.
            Err(_) if !empty => break,
            Err(error) => return reply.error(errno(error)),
        };
        let (attributes, timeout) = (entry_attributes(&found), attribute_timeout(&found, timeout));
        if reply.add(attributes.ino, next, &entry.name, &timeout, &attributes, GENERATION) {
            union.forget(found.number, 1);
            break;
        }
        empty = false;
    }
    reply.ok();
}

fn snapshot(union: &Union, handle: u64, offset: u64) -> Result<Arc<Listing>> {
    attempt("readdir", || union.read_dir(handle, offset == 0))
}

/// The entries from an offset on, each with the offset of the entry after it.
fn from(listing: &Listing, offset: u64) -> impl Iterator<Item = (u64, &ListedEntry)> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    listing.entries.iter().enumerate().skip(start).map(|(index, entry)| (index as u64 + 1, entry))
}
