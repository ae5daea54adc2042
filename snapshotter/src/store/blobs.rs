//! Blobs: files named by the digest of their content.
//!
//! Owns how a blob arrives. Must not know what is in it. Invariant: what stands under `blobs/` has the content that its name
//! says; it got there by one rename after its last byte was hashed and on disk.

use super::{Store, dirs};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

/// A whole blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its name.
    pub digest: Digest,
    /// Where it is; to be read only.
    pub path: PathBuf,
    /// Its length in bytes.
    pub size: u64,
}

/// What [`Store::begin_blob`] found.
#[derive(Debug)]
pub enum BeginBlob {
    /// It is there already.
    Present(Blob),
    /// It is yours to bring.
    Staging(BlobStaging),
}

impl Store {
    /// The blob of that digest, if it is there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn blob(&self, digest: &Digest) -> Result<Option<Blob>> {
        let path = self.dirs().blob(digest);
        match fs::metadata(&path) {
            Ok(found) => Ok(Some(Blob { digest: *digest, path, size: found.len() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("look at", &path)(error)),
        }
    }

    /// All blobs.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn blobs(&self) -> Result<Vec<Blob>> {
        let mut found = Vec::new();
        for name in dirs::names(&self.dirs().blobs())? {
            if let Ok(digest) = Digest::from_hex(&name) {
                found.extend(self.blob(&digest)?);
            }
        }
        Ok(found)
    }

    /// Begins to bring a blob of that digest and, where it is known, that size in bytes. Waits while another thread brings it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn begin_blob(&self, expected: &Digest, size: Option<u64>) -> Result<BeginBlob> {
        self.shared.blobs_under_way.take(*expected);
        let begun = self.blob(expected).and_then(|present| match present {
            Some(blob) => Ok(BeginBlob::Present(blob)),
            None => self.stage_blob(expected, size).map(BeginBlob::Staging),
        });
        if !matches!(begun, Ok(BeginBlob::Staging(_))) {
            self.shared.blobs_under_way.free(expected);
        }
        begun
    }

    fn stage_blob(&self, expected: &Digest, size: Option<u64>) -> Result<BlobStaging> {
        let path = self.dirs().ingest().join(self.new_id().to_string());
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(Error::io("create", &path))?;
        Ok(BlobStaging {
            store: self.clone(),
            file,
            path,
            expected: *expected,
            size,
            offset: 0,
            hasher: Hasher::default(),
            published: false,
        })
    }
}

/// A blob on its way in. Dropped without [`BlobStaging::commit`] it leaves nothing.
#[derive(Debug)]
pub struct BlobStaging {
    store: Store,
    file: File,
    path: PathBuf,
    expected: Digest,
    size: Option<u64>,
    offset: u64,
    hasher: Hasher,
    published: bool,
}

impl BlobStaging {
    /// How many bytes came so far: where a broken download goes on.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The file that it comes into, to be read along; it stays readable, published or not.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn reader(&self) -> Result<File> {
        File::open(&self.path).map_err(Error::io("open", &self.path))
    }

    /// Begins anew, for a source that cannot go on in the middle.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn restart(&mut self) -> Result<()> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(Error::io("empty", &self.path))?;
        self.offset = 0;
        self.hasher = Hasher::default();
        Ok(())
    }

    /// Checks the digest and publishes the blob; durable when it returns.
    ///
    /// # Errors
    /// [`Error::WrongSize`], [`Error::WrongDigest`], [`Error::Io`]; then nothing is left.
    pub fn commit(mut self) -> Result<Blob> {
        let digest = self.expected;
        if let Some(size) = self.size.filter(|size| *size != self.offset) {
            return Err(Error::WrongSize { digest: digest.to_string(), size, found: self.offset });
        }
        let found = std::mem::take(&mut self.hasher).finish();
        if found != digest {
            return Err(Error::WrongDigest { expected: digest.to_string(), found: found.to_string() });
        }
        self.file.sync_all().map_err(Error::io("sync", &self.path))?;
        let path = self.store.dirs().blob(&digest);
        fs::rename(&self.path, &path).map_err(Error::io("publish", &path))?;
        self.published = true;
        dirs::sync_dir(&self.store.dirs().blobs())?;
        Ok(Blob { digest, path, size: self.offset })
    }
}

impl Write for BlobStaging {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(size) = self.size
            && self.offset + bytes.len() as u64 > size
        {
            let text = format!("blob {} is longer than the {size} bytes that were announced", self.expected);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.offset += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for BlobStaging {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "left for the next start");
        }
        self.store.shared.blobs_under_way.free(&self.expected);
    }
}
