//! The bytes of a layer as they are stored or sent: gzip, zstd or plain, told apart by their first bytes.
//!
//! Owns reading, hashing and inflating, each in a thread of its own with a bounded queue between, so that all happen at the
//! speed of the slowest. Must not know what the bytes mean. Invariant: the digests are of every byte that was there, also of
//! those that the reader of the content had no use for.

use sha2::{Digest as _, Sha256};
use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, ScopedJoinHandle};

/// Bytes that go through a queue at once.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that a queue holds.
const QUEUE_CHUNKS: usize = 8;
/// Longest magic number.
const MAGIC_BYTES: usize = 4;

/// How a blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952, one member or several.
    Gzip,
    /// RFC 8878, one frame or several; skippable ones are passed over.
    Zstd,
}

impl Compression {
    /// Tells by the first bytes.
    pub fn of(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            // A skippable frame: zstd tools put their own notes into them.
            [first, 0x2a, 0x4d, 0x18, ..] if first & 0xf0 == 0x50 => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

/// How far a blob may expand: what guards against decompression bombs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expansion {
    /// The most that may come out.
    pub bytes_max: u64,
    /// The most that may come out for each byte that went in, once more than `EXPANSION_FREE_BYTES` came out.
    pub ratio_max: u64,
}

/// What comes out of one blob, unless the caller says otherwise.
pub const EXPANSION_BYTES_MAX: u64 = 512 << 30;
/// Deflate cannot do more than 1032, so only what was made for it goes beyond.
pub const EXPANSION_RATIO_MAX: u64 = 1100;
/// Up to here any ratio is fine: a disk can bear it.
pub const EXPANSION_FREE_BYTES: u64 = 4 << 30;

impl Default for Expansion {
    fn default() -> Self {
        Expansion { bytes_max: EXPANSION_BYTES_MAX, ratio_max: EXPANSION_RATIO_MAX }
    }
}

impl Expansion {
    fn check(&self, read: u64, expanded: u64) -> io::Result<()> {
        let Expansion { bytes_max, ratio_max } = *self;
        if expanded > bytes_max {
            return Err(io::Error::other(format!(
                "the blob expands to more than {bytes_max} bytes: if you trust the image, raise the limit"
            )));
        }
        match expanded > EXPANSION_FREE_BYTES && expanded / ratio_max > read {
            true => Err(io::Error::other(format!(
                "the blob expands more than {ratio_max} times, to {expanded} bytes so far: it looks like a decompression bomb"
            ))),
            false => Ok(()),
        }
    }
}

/// SHA-256 and length of a blob, as stored and as expanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobDigests {
    /// How it was compressed.
    pub compression: Compression,
    /// Of the bytes as they are stored.
    pub stored: [u8; 32],
    /// How many these are.
    pub stored_bytes: u64,
    /// Of the content: the DiffId, for a layer.
    pub expanded: [u8; 32],
    /// How many bytes these are.
    pub expanded_bytes: u64,
}

/// The content of a blob while it is read.
pub struct Blob {
    chunks: Receiver<io::Result<Arc<Vec<u8>>>>,
    current: Arc<Vec<u8>>,
    at: usize,
}

impl Blob {
    fn new(chunks: Receiver<io::Result<Arc<Vec<u8>>>>) -> Blob {
        Blob { chunks, current: Arc::default(), at: 0 }
    }
}

impl BufRead for Blob {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.current.len() {
            match self.chunks.recv() {
                Ok(chunk) => (self.current, self.at) = (chunk?, 0),
                // The sender is gone: all was read.
                Err(_) => return Ok(&[]),
            }
        }
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, bytes: usize) {
        self.at += bytes;
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let chunk = self.fill_buf()?;
        let bytes = chunk.len().min(buffer.len());
        buffer[..bytes].copy_from_slice(&chunk[..bytes]);
        self.consume(bytes);
        Ok(bytes)
    }
}

/// Reads a blob to its end: `consume` is given the content, `progress` the number of stored bytes that each step read.
/// Returns what `consume` answered and the digests of everything.
///
/// # Errors
/// What `consume` fails with, or what reading the rest fails with; to `consume`, failures of the input and of inflating are
/// errors of its reader.
pub fn read_blob<T, E: From<io::Error>>(
    input: impl Read + Send,
    expansion: Expansion,
    progress: &(dyn Fn(u64) + Sync),
    consume: impl FnOnce(&mut Blob) -> Result<T, E>,
) -> Result<(T, BlobDigests), E> {
    thread::scope(|scope| {
        let (stored_sender, stored) = sync_channel(QUEUE_CHUNKS);
        let (content_sender, content) = sync_channel(QUEUE_CHUNKS);
        let (hash_sender, to_hash) = sync_channel(QUEUE_CHUNKS);
        let reader = scope.spawn(move || read_stored(input, &stored_sender, progress));
        let inflater = scope.spawn(move || inflate(Blob::new(stored), expansion, &content_sender, hash_sender));
        let hasher = scope.spawn(move || hash(&to_hash));
        let mut content = Blob::new(content);
        let answer = consume(&mut content)?;
        io::copy(&mut content, &mut io::sink())?;
        let (stored, stored_bytes) = join(reader)?;
        let compression = join(inflater)?;
        let (expanded, expanded_bytes) = join(hasher)?;
        let same = compression == Compression::None;
        let (expanded, expanded_bytes) = if same { (stored, stored_bytes) } else { (expanded, expanded_bytes) };
        Ok((answer, BlobDigests { compression, stored, stored_bytes, expanded, expanded_bytes }))
    })
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> io::Result<T> {
    thread.join().map_err(|_| io::Error::other("a thread that reads the blob panicked"))
}

type Chunks = SyncSender<io::Result<Arc<Vec<u8>>>>;

fn read_stored(mut input: impl Read, out: &Chunks, progress: &(dyn Fn(u64) + Sync)) -> ([u8; 32], u64) {
    let (mut digest, mut total) = (Sha256::new(), 0);
    loop {
        let chunk = match read_chunk(&mut input) {
            Ok(chunk) if chunk.is_empty() => break,
            Ok(chunk) => chunk,
            Err(error) => {
                // Where nobody listens any more, the listener has failed and says why itself.
                out.send(Err(error)).unwrap_or_default();
                break;
            }
        };
        digest.update(&chunk);
        total += chunk.len() as u64;
        progress(chunk.len() as u64);
        if out.send(Ok(Arc::new(chunk))).is_err() {
            break;
        }
    }
    (digest.finalize().into(), total)
}

/// Fills a chunk, or as much of it as there is.
fn read_chunk(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    input.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
    Ok(chunk)
}

/// Counts what an inflater takes in.
struct Counted {
    blob: Blob,
    taken: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.blob.read(buffer).inspect(|bytes| self.taken += *bytes as u64)
    }
}

impl BufRead for Counted {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.blob.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.taken += bytes as u64;
        self.blob.consume(bytes);
    }
}

fn inflate(mut blob: Blob, expansion: Expansion, out: &Chunks, to_hash: SyncSender<Arc<Vec<u8>>>) -> Compression {
    // The first chunk is as long as the blob is, up to its size: a magic number is never split.
    let start = match blob.fill_buf() {
        Ok(start) => &start[..start.len().min(MAGIC_BYTES)],
        Err(error) => {
            out.send(Err(error)).unwrap_or_default();
            return Compression::None;
        }
    };
    let compression = Compression::of(start);
    let counted = Counted { blob, taken: 0 };
    let outcome = match compression {
        Compression::None => pass(counted, out, expansion),
        Compression::Gzip => {
            let mut decoder = flate2::bufread::MultiGzDecoder::new(counted);
            pump(&mut decoder, |decoder| decoder.get_ref().taken, expansion, out, &to_hash)
        }
        Compression::Zstd => zstd::stream::read::Decoder::with_buffer(counted)
            .and_then(|mut decoder| pump(&mut decoder, |decoder| decoder.get_ref().taken, expansion, out, &to_hash)),
    };
    if let Err(error) = outcome {
        out.send(Err(error)).unwrap_or_default();
    }
    compression
}

/// Hands plain content on: it was hashed when it was read.
fn pass(mut counted: Counted, out: &Chunks, expansion: Expansion) -> io::Result<()> {
    loop {
        let bytes = counted.fill_buf()?.len();
        if bytes == 0 {
            return Ok(());
        }
        let chunk = Arc::clone(&counted.blob.current);
        counted.consume(bytes);
        expansion.check(counted.taken, counted.taken)?;
        if out.send(Ok(chunk)).is_err() {
            return Ok(());
        }
    }
}

fn pump<D: Read>(
    decoder: &mut D,
    taken: impl Fn(&D) -> u64,
    expansion: Expansion,
    out: &Chunks,
    to_hash: &SyncSender<Arc<Vec<u8>>>,
) -> io::Result<()> {
    let mut expanded = 0;
    loop {
        let chunk = Arc::new(read_chunk(decoder)?);
        if chunk.is_empty() {
            return Ok(());
        }
        expanded += chunk.len() as u64;
        expansion.check(taken(decoder), expanded)?;
        if to_hash.send(Arc::clone(&chunk)).is_err() || out.send(Ok(chunk)).is_err() {
            return Ok(());
        }
    }
}

fn hash(chunks: &Receiver<Arc<Vec<u8>>>) -> ([u8; 32], u64) {
    let (mut digest, mut total) = (Sha256::new(), 0);
    for chunk in chunks {
        digest.update(chunk.as_slice());
        total += chunk.len() as u64;
    }
    (digest.finalize().into(), total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).expect("compress");
        encoder.finish().expect("compress")
    }

    fn zstd(data: &[u8]) -> Vec<u8> {
        ::zstd::encode_all(data, 1).expect("compress")
    }

    fn sha256(data: &[u8]) -> [u8; 32] {
        Sha256::digest(data).into()
    }

    fn read(blob: &[u8], expansion: Expansion) -> io::Result<(Vec<u8>, BlobDigests)> {
        let progress = AtomicU64::new(0);
        let told = |bytes| {
            progress.fetch_add(bytes, Ordering::Relaxed);
        };
        let (content, digests) = read_blob(blob, expansion, &told, |content| {
            let mut all = Vec::new();
            content.read_to_end(&mut all).map(|_| all)
        })?;
        assert_eq!(progress.into_inner(), digests.stored_bytes);
        Ok((content, digests))
    }

    /// Larger than all queues together.
    fn content() -> Vec<u8> {
        (0..9_000_000_u32).map(|at| (at.wrapping_mul(at) >> 7) as u8).collect()
    }

    #[test]
    fn every_compression_is_told_apart_and_hashed_on_both_sides() {
        let content = content();
        let plain = (content.clone(), Compression::None);
        for (blob, compression) in [plain, (gzip(&content), Compression::Gzip), (zstd(&content), Compression::Zstd)] {
            let (read, digests) = read(&blob, Expansion::default()).expect("it is read");
            assert!(read == content, "{compression:?}");
            let (stored_bytes, expanded_bytes) = (blob.len() as u64, content.len() as u64);
            let (stored, expanded) = (sha256(&blob), sha256(&content));
            assert_eq!(digests, BlobDigests { compression, stored, stored_bytes, expanded, expanded_bytes });
        }
    }

    #[test]
    fn members_and_frames_follow_each_other() {
        let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"xyz"].concat();
        for blob in [
            [gzip(b"one"), gzip(b""), gzip(b"two")].concat(),
            [skippable.clone(), zstd(b"one"), skippable, zstd(b"two")].concat(),
        ] {
            assert_eq!(read(&blob, Expansion::default()).expect("it is read").0, b"onetwo");
        }
    }

    #[test]
    fn what_is_cut_or_damaged_is_an_error() {
        for mut blob in [gzip(&content()), zstd(&content())] {
            assert!(read(&blob[..blob.len() - 5], Expansion::default()).is_err());
            let middle = blob.len() / 2;
            blob[middle..middle + 64].fill(0xa5);
            // A frame of zstd need not carry a checksum: then it is the digest that tells.
            let damaged = read(&blob, Expansion::default());
            assert!(damaged.map_or(true, |(_, digests)| digests.expanded != sha256(&content())));
        }
    }

    #[test]
    fn bomb_is_stopped_where_it_passes_the_limit() {
        let small = Expansion { bytes_max: 1 << 20, ..Expansion::default() };
        for blob in [gzip(&vec![0; 8 << 20]), zstd(&vec![0; 8 << 20]), vec![0; 8 << 20]] {
            let error = read(&blob, small).expect_err("it is refused").to_string();
            assert!(error.contains("more than 1048576 bytes"), "{error}");
        }
        let bomb = Expansion::default().check(1000, 5 << 30).expect_err("it is refused").to_string();
        assert!(bomb.contains("decompression bomb"), "{bomb}");
        Expansion::default().check(1000, 1 << 30).expect("small enough for any disk");
    }

    #[test]
    fn reader_that_gives_up_ends_all_threads() {
        let blob = gzip(&content());
        let outcome = read_blob(blob.as_slice(), Expansion::default(), &|_| (), |content| {
            content.fill_buf()?;
            Err::<(), _>(io::Error::other("enough"))
        });
        assert_eq!(outcome.expect_err("it gives up").to_string(), "enough");
    }

    #[test]
    fn content_that_is_not_wanted_is_hashed_all_the_same() {
        let blob = gzip(&content());
        let (_, digests) =
            read_blob(blob.as_slice(), Expansion::default(), &|_| (), |_| Ok::<_, io::Error>(())).expect("it is read");
        assert_eq!(digests.expanded, sha256(&content()));
    }
}
