//! Images go out: as an OCI layout, in a directory or an archive, or as an archive that `docker load` reads.
//!
//! Owns the order of files. The Docker archive is that of Docker 25 and later: an OCI layout with a `manifest.json` beside
//! it, which older ones read as well. Invariant: equal images give equal archives.

use super::docker::DockerImage;
use super::document::{self, Image, Kind};
use super::error::ImageError;
use super::layout::{FULL_NAME, REF_NAME};
use super::platform::Platform;
use super::progress::{Progress, Report, Stage};
use super::reference::Reference;
use crate::digest::Digest;
use crate::error::Error;
use crate::store::{Blob, ImageRecord, Store};
use lamina_fs::layer::{ArchiveAttributes, ArchiveEntry, ArchiveKind, ArchiveWriter, Timestamp};
use oci_spec::image::{Descriptor, ImageIndexBuilder, MediaType};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// Bytes of a blob that are in memory at once.
const COPY_BYTES: usize = 256 << 10;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An archive of an OCI layout.
    Oci,
    /// The same with what `docker load` needs.
    Docker,
}

/// Writes an archive of these images.
///
/// # Errors
/// An image that is not complete, before anything is written; or what writing failed with.
pub fn save(
    store: &Store,
    images: &[ImageRecord],
    format: Format,
    out: impl Write,
    progress: Progress<'_>,
) -> Result<(), ImageError> {
    let lease = store.lease();
    let contents = Contents::of(store, &lease, images)?;
    let mut archive = ArchiveWriter::new(out);
    let fail = || ImageError::write("the archive");
    let dirs = |archive: &mut ArchiveWriter<_>| {
        ["blobs/", "blobs/sha256/"].iter().try_for_each(|dir| archive.entry(&entry(dir, ArchiveKind::Dir)))
    };
    dirs(&mut archive).map_err(fail())?;
    for blob in contents.blobs.values() {
        send(blob, progress, |begin, data| match begin {
            true => archive.entry(&entry(&format!("blobs/sha256/{}", blob.digest.hex()), file(blob.size))),
            false => archive.data(data),
        })?;
    }
    let mut texts = vec![("index.json", contents.index(images)?)];
    if format == Format::Docker {
        texts.push(("manifest.json", contents.docker()?));
    }
    texts.push(("oci-layout", LAYOUT.to_vec()));
    for (name, text) in texts {
        archive.entry(&entry(name, file(text.len() as u64))).map_err(fail())?;
        archive.data(&text).map_err(fail())?;
    }
    archive.finish().map(drop).map_err(fail())
}

/// Writes an OCI layout directory, which must not exist.
///
/// # Errors
/// An image that is not complete, before anything is written; or what writing failed with: then nothing is left.
pub fn save_directory(
    store: &Store,
    images: &[ImageRecord],
    dir: &Path,
    progress: Progress<'_>,
) -> Result<(), ImageError> {
    let lease = store.lease();
    let contents = Contents::of(store, &lease, images)?;
    let index = contents.index(images)?;
    let what = dir.display().to_string();
    std::fs::create_dir(dir).map_err(ImageError::write(what.clone()))?;
    let write = || {
        let fail = || ImageError::write(what.clone());
        let blobs = dir.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).map_err(fail())?;
        for blob in contents.blobs.values() {
            let mut out = File::create_new(blobs.join(blob.digest.hex())).map_err(fail())?;
            send(blob, progress, |begin, data| if begin { Ok(()) } else { out.write_all(data) })?;
        }
        std::fs::write(dir.join("oci-layout"), LAYOUT).map_err(fail())?;
        std::fs::write(dir.join("index.json"), &index).map_err(fail())
    };
    let outcome = write();
    if outcome.is_err()
        && let Err(error) = std::fs::remove_dir_all(dir)
    {
        tracing::warn!(%error, dir = what, "an incomplete layout stays");
    }
    outcome
}

/// Everything that belongs to some images.
struct Contents {
    blobs: BTreeMap<Digest, Blob>,
    images: Vec<(Image, Vec<Reference>)>,
}

impl Contents {
    fn of(store: &Store, lease: &crate::store::Lease, records: &[ImageRecord]) -> Result<Contents, ImageError> {
        let mut contents = Contents { blobs: BTreeMap::new(), images: Vec::new() };
        for record in records {
            let image = Image::open(store, &record.manifest, &Platform::host())
                .or_else(|_| any_platform(store, &record.manifest))?;
            let layers = image.layers.iter().map(|layer| layer.blob);
            for digest in [record.manifest, image.manifest_digest, image.config_digest].into_iter().chain(layers) {
                lease.pin_blob(&digest);
                let blob = store.blob(&digest)?.ok_or_else(|| Error::NoBlob { digest: digest.to_string() })?;
                contents.blobs.insert(digest, blob);
            }
            let name: Reference = record.reference.parse()?;
            match contents.images.iter_mut().find(|(known, _)| known.manifest_digest == image.manifest_digest) {
                Some((_, names)) => names.push(name),
                None => contents.images.push((image, vec![name])),
            }
        }
        Ok(contents)
    }

    fn index(&self, records: &[ImageRecord]) -> Result<Vec<u8>, ImageError> {
        let broken = |cause: String| ImageError::BadDocument { what: "the layout's index".to_owned(), cause };
        let mut manifests = Vec::new();
        for record in records {
            let blob = self.blobs.get(&record.manifest);
            let size = blob.map_or(0, |blob| blob.size);
            let digest: oci_spec::image::Digest = record
                .manifest
                .to_string()
                .parse()
                .map_err(|error: oci_spec::OciSpecError| broken(error.to_string()))?;
            let mut descriptor = Descriptor::new(MediaType::from(record.media_type.as_str()), size, digest);
            let name: Reference = record.reference.parse()?;
            let tag = name.tag().map(|tag| (REF_NAME.to_owned(), tag.to_owned()));
            let full = (FULL_NAME.to_owned(), record.reference.clone());
            descriptor.set_annotations(Some(HashMap::from_iter(tag.into_iter().chain([full]))));
            manifests.push(descriptor);
        }
        let index = ImageIndexBuilder::default()
            .schema_version(2_u32)
            .media_type(MediaType::ImageIndex)
            .manifests(manifests)
            .build()
            .map_err(|error| broken(error.to_string()))?;
        // Through a value whose maps are sorted: the annotations' own map is not.
        let value = serde_json::to_value(&index).map_err(ImageError::document("the layout's index"))?;
        serde_json::to_vec(&value).map_err(ImageError::document("the layout's index"))
    }

    fn docker(&self) -> Result<Vec<u8>, ImageError> {
        let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        let images: Vec<DockerImage> = self
            .images
            .iter()
            .map(|(image, names)| DockerImage {
                config: path(&image.config_digest),
                repo_tags: names
                    .iter()
                    .filter(|name| name.tag().is_some())
                    .map(Reference::familiar)
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .collect(),
                layers: image.layers.iter().map(|layer| path(&layer.blob)).collect(),
            })
            .collect();
        serde_json::to_vec(&images).map_err(ImageError::document("manifest.json"))
    }
}

/// Of an index whose image for this machine is not there, the one that is.
fn any_platform(store: &Store, root: &Digest) -> Result<Image, ImageError> {
    let text = document::read(store, root)?;
    if document::kind(root, &text)? == Kind::Index {
        let index: oci_spec::image::ImageIndex = document::parse(&format!("index {root}"), &text)?;
        for descriptor in index.manifests() {
            let digest = document::of(descriptor)?;
            if store.blob(&digest)?.is_some() {
                return Image::open(store, &digest, &Platform::host());
            }
        }
    }
    Image::open(store, root, &Platform::host())
}

/// Reads a blob once: `out` is told of its beginning, then of its data.
fn send(
    blob: &Blob,
    progress: Progress<'_>,
    mut out: impl FnMut(bool, &[u8]) -> std::io::Result<()>,
) -> Result<(), ImageError> {
    let (digest, stage) = (blob.digest, Stage::Send);
    progress(Report::Begin { blob: digest, stage, bytes: Some(blob.size) });
    let what = blob.path.display().to_string();
    let mut file = File::open(&blob.path).map_err(ImageError::read(what.clone()))?;
    let fail = || ImageError::write(format!("blob {digest}"));
    out(true, &[]).map_err(fail())?;
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let read = file.read(&mut buffer).map_err(ImageError::read(what.clone()))?;
        if read == 0 {
            break;
        }
        out(false, &buffer[..read]).map_err(fail())?;
        progress(Report::Advance { blob: digest, stage, bytes: read as u64 });
    }
    progress(Report::End { blob: digest, stage });
    Ok(())
}

fn file(size: u64) -> ArchiveKind {
    ArchiveKind::File { size, pieces: None }
}

fn entry(path: &str, kind: ArchiveKind) -> ArchiveEntry {
    let mode = if kind == ArchiveKind::Dir { 0o755 } else { 0o644 };
    let mtime = Timestamp::default();
    let attributes = ArchiveAttributes { mode, uid: 0, gid: 0, mtime, atime: None, xattrs: Vec::new() };
    ArchiveEntry::new(path.as_bytes().to_vec(), kind, attributes)
}
