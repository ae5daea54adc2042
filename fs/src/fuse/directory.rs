//! READDIR and READDIRPLUS.
//!
//! Owns how a listing is cut into replies. Must not know how listings are merged. Invariants: an offset is a position of the
//! union's, which needs no open directory; every lookup that is counted for an entry reached the kernel or was forgotten again.

use super::convert::{entry_attributes, file_type, unnumbered_entry};
use super::errno::errno;
use super::reply::{GENERATION, attempt, attribute_timeout};
use crate::error::Result;
use crate::union::{InodeNumber, Kind, Listing, Union};
use fuser::{INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use std::sync::Arc;
use std::time::Duration;

/// Answers READDIR: names, numbers and kinds.
pub(super) fn read(union: &Union, directory: InodeNumber, offset: u64, mut reply: ReplyDirectory) {
    let listing = match listing(union, directory, offset) {
        Ok(listing) => listing,
        Err(error) => return reply.error(errno(error)),
    };
    for entry in listing.after(offset) {
        if reply.add(INodeNo(entry.st_ino), entry.next, file_type(entry.kind), &entry.name) {
            break;
        }
    }
    reply.ok();
}

/// Answers READDIRPLUS: each name with what LOOKUP would say of it.
pub(super) fn read_plus(
    union: &Union,
    directory: InodeNumber,
    offset: u64,
    timeout: Duration,
    mut reply: ReplyDirectoryPlus,
) {
    let listing = match listing(union, directory, offset) {
        Ok(listing) => listing,
        Err(error) => return reply.error(errno(error)),
    };
    let mut empty = true;
    for entry in listing.after(offset) {
        if &*entry.name == "." || &*entry.name == ".." {
            // Not counted: the kernel takes no reference to these two and reads no attributes of them.
            let attributes = unnumbered_entry(entry.st_ino, Kind::Directory);
            let number = INodeNo(entry.st_ino);
            if reply.add(number, entry.next, &entry.name, &timeout, &attributes, GENERATION) {
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
        if reply.add(attributes.ino, entry.next, &entry.name, &timeout, &attributes, GENERATION) {
            union.forget(found.number, 1);
            break;
        }
        empty = false;
    }
    reply.ok();
}

fn listing(union: &Union, directory: InodeNumber, offset: u64) -> Result<Arc<Listing>> {
    attempt("readdir", || union.read_dir(directory, offset))
}
