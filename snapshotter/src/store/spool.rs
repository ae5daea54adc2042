//! A blob whose digest is known only once all of it came: what archives hold under other names, and what is made here.
//!
//! Invariant: as of every blob: it is published by one rename, under the digest of the bytes that are on disk.

use super::{Blob, Lease, Store, dirs};
use crate::digest::Hasher;
use crate::error::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

impl Store {
    /// Begins a blob of any digest.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn spool_blob(&self) -> Result<BlobSpool> {
        let path = self.dirs().ingest().join(self.new_id().to_string());
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(Error::io("create", &path))?;
        Ok(BlobSpool { store: self.clone(), file, path, size: 0, hasher: Hasher::default(), published: false })
    }
}

/// A blob on its way in. Dropped without [`BlobSpool::commit`] it leaves nothing.
#[derive(Debug)]
pub struct BlobSpool {
    store: Store,
    file: File,
    path: PathBuf,
    size: u64,
    hasher: Hasher,
    published: bool,
}

impl BlobSpool {
    /// Publishes the blob under its digest, which `lease` pins; durable when it returns.
    ///
    /// # Errors
    /// [`Error::Io`]; then nothing is left.
    pub fn commit(mut self, lease: &Lease) -> Result<Blob> {
        let digest = std::mem::take(&mut self.hasher).finish();
        lease.pin_blob(&digest);
        self.store.shared.blobs_under_way.take(digest);
        let published = self.publish(&digest);
        self.store.shared.blobs_under_way.free(&digest);
        published
    }

    fn publish(&mut self, digest: &crate::digest::Digest) -> Result<Blob> {
        if let Some(present) = self.store.blob(digest)? {
            return Ok(present);
        }
        self.file.sync_all().map_err(Error::io("sync", &self.path))?;
        let path = self.store.dirs().blob(digest);
        fs::rename(&self.path, &path).map_err(Error::io("publish", &path))?;
        self.published = true;
        dirs::sync_dir(&self.store.dirs().blobs())?;
        Ok(Blob { digest: *digest, path, size: self.size })
    }
}

impl Write for BlobSpool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for BlobSpool {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "left for the next start");
        }
    }
}
