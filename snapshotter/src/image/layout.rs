//! Images come in: OCI layout directories, and archives of them or of `docker save`, from files and pipes.
//!
//! Owns one pass over the input: what is named by its digest goes into the store as it comes, the rest is spooled there and
//! named afterwards. Invariant: an image is recorded when all its blobs were verified and its layers unpacked; where that
//! fails, nothing of it is left.

use super::docker;
use super::document::{self, Image, Kind};
use super::error::ImageError;
use super::platform::Platform;
use super::progress::{Progress, Report, Stage};
use super::reference::Reference;
use super::unpack::{UnpackOptions, unpack};
use crate::digest::Digest;
use crate::store::{BeginBlob, Blob, ImageRecord, Lease, Store};
use lamina_fs::layer::{Archive, ArchiveEntry, ArchiveError, ArchiveKind, Compression, read_blob};
use oci_spec::image::{Descriptor, ImageIndex};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::time::SystemTime;

/// Containerd's and Docker's annotation of the full name.
pub const FULL_NAME: &str = "io.containerd.image.name";
/// The specification's annotation, which holds a tag, or by custom a full name.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Bytes that are read from the input at once.
const INPUT_BYTES: usize = 256 << 10;
/// Files of an archive, at most.
const FILES_MAX: usize = 100_000;

/// How images are taken in.
#[derive(Clone, Copy)]
pub struct LoadOptions<'a> {
    /// Their name, in place of what the archive says; for an archive of one image.
    pub name: Option<&'a Reference>,
    /// Which image of an index.
    pub platform: &'a Platform,
    /// How layers are written.
    pub unpack: UnpackOptions,
    /// Who is told.
    pub progress: Progress<'a>,
}

/// An image that was taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its name.
    pub reference: String,
    /// What the name means.
    pub manifest: Digest,
}

/// Takes in what is at `path`: a layout directory or an archive of any kind.
///
/// # Errors
/// What is wrong with it; then the store is as before.
pub fn load(store: &Store, path: &Path, options: &LoadOptions<'_>) -> Result<Vec<Loaded>, ImageError> {
    let what = path.display().to_string();
    if path.is_dir() {
        return whole(store, || load_directory(store, path, options));
    }
    let file = File::open(path).map_err(ImageError::read(what.clone()))?;
    load_archive(store, file, &what, options)
}

/// Takes in an archive, compressed or not, that can be read once only; errors call it `what`.
///
/// # Errors
/// What is wrong with it; then the store is as before.
pub fn load_archive(
    store: &Store,
    input: impl Read + Send,
    what: &str,
    options: &LoadOptions<'_>,
) -> Result<Vec<Loaded>, ImageError> {
    let mut input = BufReader::with_capacity(INPUT_BYTES, input);
    let start = input.fill_buf().map_err(ImageError::read(what))?;
    let compressed = Compression::of(start) != Compression::None;
    whole(store, || {
        let lease = store.lease();
        let mut gathered = Gathered::new(store, &lease, what);
        if compressed {
            let expansion = options.unpack.expansion;
            read_blob(input, expansion, &|_| (), |content| gathered.read(content, options.progress))?;
        } else {
            gathered.read(&mut input, options.progress)?;
        }
        gathered.images(options)
    })
}

/// Does it, and removes what it left where it fails.
fn whole<T>(store: &Store, work: impl FnOnce() -> Result<T, ImageError>) -> Result<T, ImageError> {
    let outcome = work();
    if outcome.is_err()
        && let Err(error) = store.prune()
    {
        tracing::warn!(%error, "what a failed load left stays until the next prune");
    }
    outcome
}

/// What an archive held.
pub(super) struct Gathered<'a> {
    store: &'a Store,
    lease: &'a Lease,
    pub(super) what: &'a str,
    /// Spooled files by their names.
    files: BTreeMap<String, Blob>,
    /// Other names of them.
    links: BTreeMap<String, String>,
    index: Option<Vec<u8>>,
    docker: Option<Vec<u8>>,
    repositories: bool,
}

impl<'a> Gathered<'a> {
    fn new(store: &'a Store, lease: &'a Lease, what: &'a str) -> Self {
        let (files, links) = (BTreeMap::new(), BTreeMap::new());
        Gathered { store, lease, what, files, links, index: None, docker: None, repositories: false }
    }

    fn read(&mut self, input: impl BufRead, progress: Progress<'_>) -> Result<(), ImageError> {
        let mut archive = Archive::new(input);
        while let Some(entry) = archive.next_entry().map_err(|cause| self.archive(cause))? {
            let path = clean(&entry.path);
            if self.files.len() + self.links.len() > FILES_MAX {
                let cause = format!("it holds more than {FILES_MAX} files");
                return Err(ImageError::BadDocument { what: self.what.to_owned(), cause });
            }
            match (&entry.kind, path.as_str()) {
                (ArchiveKind::File { .. }, "index.json") => self.index = Some(self.small(&mut archive, &entry)?),
                (ArchiveKind::File { .. }, "manifest.json") => self.docker = Some(self.small(&mut archive, &entry)?),
                (ArchiveKind::File { .. }, "repositories") => self.repositories = true,
                // Of Docker's oldest format, kept by later ones beside each layer.
                (ArchiveKind::File { .. }, "oci-layout") => {}
                (ArchiveKind::File { .. }, path) if path.ends_with("/VERSION") || path.ends_with("/json") => {}
                (ArchiveKind::File { size, .. }, path) => self.blob(&mut archive, path, *size, progress)?,
                (ArchiveKind::Symlink { target }, path) => {
                    let target = beside(path, &String::from_utf8_lossy(target));
                    self.links.insert(path.to_owned(), target);
                }
                (ArchiveKind::HardLink { target }, path) => {
                    self.links.insert(path.to_owned(), clean(target));
                }
                _ => {}
            }
        }
        // The writer of a pipe must not be cut off before it has written the padding.
        std::io::copy(&mut archive.into_inner(), &mut std::io::sink()).map_err(ImageError::read(self.what))?;
        Ok(())
    }

    fn archive(&self, cause: ArchiveError) -> ImageError {
        ImageError::Archive { what: self.what.to_owned(), cause }
    }

    fn small<R: BufRead>(&self, archive: &mut Archive<R>, entry: &ArchiveEntry) -> Result<Vec<u8>, ImageError> {
        let ArchiveKind::File { size, .. } = entry.kind else { return Ok(Vec::new()) };
        document::check_size(&format!("{} in {}", clean(&entry.path), self.what), size)?;
        let mut text = Vec::new();
        self.copy(archive, &mut text, |_| ())?;
        Ok(text)
    }

    fn blob<R: BufRead>(
        &mut self,
        archive: &mut Archive<R>,
        path: &str,
        size: u64,
        progress: Progress<'_>,
    ) -> Result<(), ImageError> {
        let named = path.strip_prefix("blobs/sha256/").and_then(|hex| Digest::from_hex(hex).ok());
        let Some(blob) = named else {
            let mut spool = self.store.spool_blob()?;
            self.copy(archive, &mut spool, |_| ())?;
            let blob = spool.commit(self.lease)?;
            self.files.insert(path.to_owned(), blob);
            return Ok(());
        };
        self.lease.pin_blob(&blob);
        let stage = Stage::Fetch;
        progress(Report::Begin { blob, stage, bytes: Some(size) });
        let found = match self.store.begin_blob(&blob, Some(size))? {
            BeginBlob::Present(found) => found,
            BeginBlob::Staging(mut staging) => {
                self.copy(archive, &mut staging, |bytes| progress(Report::Advance { blob, stage, bytes }))?;
                staging.commit()?
            }
        };
        progress(Report::End { blob, stage });
        self.files.insert(path.to_owned(), found);
        Ok(())
    }

    fn copy<R: BufRead>(
        &self,
        archive: &mut Archive<R>,
        out: &mut impl Write,
        report: impl Fn(u64),
    ) -> Result<(), ImageError> {
        loop {
            let chunk = archive.data().map_err(|cause| self.archive(cause))?;
            let bytes = chunk.len();
            if bytes == 0 {
                return Ok(());
            }
            out.write_all(chunk).map_err(ImageError::write("a blob of the store"))?;
            archive.consume(bytes);
            report(bytes as u64);
        }
    }

    /// The file of a name, through at most a few links.
    pub(super) fn file(&self, name: &str) -> Result<&Blob, ImageError> {
        let mut name = clean(name.as_bytes());
        for _ in 0..8 {
            if let Some(file) = self.files.get(&name) {
                return Ok(file);
            }
            match self.links.get(&name) {
                Some(target) => name.clone_from(target),
                None => break,
            }
        }
        Err(ImageError::Missing { what: self.what.to_owned(), missing: name })
    }

    fn images(&self, options: &LoadOptions<'_>) -> Result<Vec<Loaded>, ImageError> {
        let roots = match (&self.index, &self.docker) {
            (Some(index), _) => of_index(self.what, index, options.platform)?,
            (None, Some(docker)) => docker::images(self.store, self.lease, self, docker)?,
            (None, None) if self.repositories => return Err(ImageError::TooOld { what: self.what.to_owned() }),
            (None, None) => return Err(ImageError::NotAnImage { what: self.what.to_owned() }),
        };
        record(self.store, self.lease, self.what, &roots, options)
    }
}

/// What an archive or layout calls an image: the names, and the manifest or index.
pub(super) struct Root {
    pub names: Vec<String>,
    pub digest: Digest,
    pub media_type: String,
}

/// The images that an `index.json` lists. Where it lists one image for several platforms, only the one that serves counts.
fn of_index(what: &str, text: &[u8], platform: &Platform) -> Result<Vec<Root>, ImageError> {
    let index: ImageIndex = document::parse(&format!("index.json in {what}"), text)?;
    let serves = |descriptor: &&Descriptor| match descriptor.platform() {
        Some(found) => {
            let (os, architecture) = (found.os().to_string(), found.architecture().to_string());
            platform.fit(&os, &architecture, found.variant().as_deref()).is_some()
        }
        None => true,
    };
    let mut roots: Vec<Root> = Vec::new();
    for descriptor in index.manifests().iter().filter(serves) {
        let digest = document::of(descriptor)?;
        let annotations = descriptor.annotations().clone().unwrap_or_default();
        let name = annotations.get(FULL_NAME).or_else(|| annotations.get(REF_NAME)).cloned();
        match roots.iter_mut().find(|root| root.digest == digest) {
            Some(root) => root.names.extend(name),
            None => {
                let media_type = descriptor.media_type().to_string();
                roots.push(Root { names: name.into_iter().collect(), digest, media_type });
            }
        }
    }
    match roots.is_empty() {
        true => {
            let known = index.manifests().iter().filter_map(|descriptor| descriptor.platform().as_ref());
            let found: Vec<String> = known.map(|known| format!("{}/{}", known.os(), known.architecture())).collect();
            match found.is_empty() {
                true => Err(ImageError::NotAnImage { what: what.to_owned() }),
                false => Err(ImageError::OtherPlatform { wanted: platform.to_string(), found: found.join(", ") }),
            }
        }
        false => Ok(roots),
    }
}

/// Checks, unpacks and records images whose blobs are in the store.
fn record(
    store: &Store,
    lease: &Lease,
    what: &str,
    roots: &[Root],
    options: &LoadOptions<'_>,
) -> Result<Vec<Loaded>, ImageError> {
    if options.name.is_some() && roots.len() > 1 {
        return Err(ImageError::ManyImages { what: what.to_owned(), count: roots.len() });
    }
    let mut records = Vec::new();
    for root in roots {
        let names = match options.name {
            Some(name) => vec![name.clone()],
            None => root
                .names
                .iter()
                .filter(|name| name.contains([':', '/']))
                .map(|name| name.parse())
                .collect::<Result<_, _>>()?,
        };
        if names.is_empty() {
            return Err(ImageError::NoName { what: what.to_owned() });
        }
        let image = Image::open(store, &root.digest, options.platform)?;
        image.check_blobs(store)?;
        unpack(store, lease, &image, &options.unpack, options.progress)?;
        records.extend(names.into_iter().map(|name| ImageRecord {
            reference: name.to_string(),
            manifest: root.digest,
            media_type: root.media_type.clone(),
            created: SystemTime::now(),
        }));
    }
    for record in &records {
        store.put_image(record)?;
    }
    Ok(records.into_iter().map(|record| Loaded { reference: record.reference, manifest: record.manifest }).collect())
}

fn load_directory(store: &Store, dir: &Path, options: &LoadOptions<'_>) -> Result<Vec<Loaded>, ImageError> {
    let what = dir.display().to_string();
    let path = dir.join("index.json");
    if !path.is_file() {
        return Err(ImageError::NotAnImage { what });
    }
    let length = path.metadata().map_err(ImageError::read(path.display().to_string()))?.len();
    document::check_size(&path.display().to_string(), length)?;
    let text = std::fs::read(&path).map_err(ImageError::read(path.display().to_string()))?;
    let roots = of_index(&what, &text, options.platform)?;
    let lease = store.lease();
    let source = Directory { store, lease: &lease, dir, progress: options.progress };
    for root in &roots {
        source.bring(&root.digest)?;
        let text = document::read(store, &root.digest)?;
        if document::kind(&root.digest, &text)? == Kind::Index {
            let index = document::parse(&format!("index {}", root.digest), &text)?;
            source.bring(&document::choose(&index, options.platform)?)?;
        }
        let manifest = source.manifest(&root.digest, options.platform)?;
        source.bring(&document::of(manifest.config())?)?;
        for layer in manifest.layers() {
            source.bring(&document::of(layer)?)?;
        }
    }
    record(store, &lease, &what, &roots, options)
}

struct Directory<'a> {
    store: &'a Store,
    lease: &'a Lease,
    dir: &'a Path,
    progress: Progress<'a>,
}

impl Directory<'_> {
    fn bring(&self, blob: &Digest) -> Result<(), ImageError> {
        self.lease.pin_blob(blob);
        let path = self.dir.join("blobs/sha256").join(blob.hex());
        let what = path.display().to_string();
        let stage = Stage::Fetch;
        let BeginBlob::Staging(mut staging) = self.store.begin_blob(blob, None)? else { return Ok(()) };
        let mut file = File::open(&path).map_err(|_| ImageError::Missing {
            what: self.dir.display().to_string(),
            missing: format!("blobs/sha256/{}", blob.hex()),
        })?;
        let bytes = file.metadata().map_err(ImageError::read(what.clone()))?.len();
        (self.progress)(Report::Begin { blob: *blob, stage, bytes: Some(bytes) });
        let mut buffer = vec![0; INPUT_BYTES];
        loop {
            let read = file.read(&mut buffer).map_err(ImageError::read(what.clone()))?;
            if read == 0 {
                break;
            }
            staging.write_all(&buffer[..read]).map_err(ImageError::write("a blob of the store"))?;
            (self.progress)(Report::Advance { blob: *blob, stage, bytes: read as u64 });
        }
        staging.commit()?;
        (self.progress)(Report::End { blob: *blob, stage });
        Ok(())
    }

    fn manifest(&self, root: &Digest, platform: &Platform) -> Result<oci_spec::image::ImageManifest, ImageError> {
        let text = document::read(self.store, root)?;
        match document::kind(root, &text)? {
            Kind::Manifest => document::parse(&format!("manifest {root}"), &text),
            Kind::Index => {
                let chosen = document::choose(&document::parse(&format!("index {root}"), &text)?, platform)?;
                document::parse(&format!("manifest {chosen}"), &document::read(self.store, &chosen)?)
            }
        }
    }
}

/// A name of an archive without `./`, a leading or a trailing slash.
fn clean(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    text.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/")
}

/// Where a relative link leads.
fn beside(path: &str, target: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_old_archives_lead_to_their_layer() {
        assert_eq!(beside("abc/layer.tar", "../def/layer.tar"), "def/layer.tar");
        assert_eq!(beside("layer.tar", "../../x"), "x");
        assert_eq!(clean(b"./a//b/"), "a/b");
    }
}
