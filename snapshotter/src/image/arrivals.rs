//! The blobs of an image's layers while they come: who unpacks a layer reads along with who fetches it.
//!
//! Owns how far each has come; the bytes are in the store's own files, so that neither side holds the other up and a download
//! can go on where it was cut. Must not know where blobs come from. Invariant: a reader comes to the end of a blob only when
//! the whole was written; it must check the digest of what it read itself, as a download may begin anew under it.

use super::error::ImageError;
use super::unpack::Source;
use parking_lot::{Condvar, Mutex};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// The blobs of one image, by the place of their layer, bottom first.
pub struct Arrivals {
    table: Mutex<Table>,
    changed: Condvar,
}

struct Table {
    blobs: Vec<Option<Arrival>>,
    /// One will not come: nobody needs to wait for any.
    broken: bool,
    /// The layer that could not be unpacked, the first of them.
    refused: Option<usize>,
}

#[derive(Clone)]
struct Arrival {
    file: Arc<File>,
    bytes: u64,
    whole: bool,
}

impl Arrivals {
    /// None has come yet.
    pub fn new(layers: usize) -> Arrivals {
        let table = Table { blobs: vec![None; layers], broken: false, refused: None };
        Arrivals { table: Mutex::new(table), changed: Condvar::new() }
    }

    /// The blob of a layer begins to come, into this file, of which so many bytes are there.
    pub fn begin(&self, at: usize, file: File, bytes: u64) {
        self.change(|table| table.blobs[at] = Some(Arrival { file: Arc::new(file), bytes, whole: false }));
    }

    /// How many bytes of it are there now. Fewer than before must be told before they go from the file.
    pub fn advance(&self, at: usize, to: u64) {
        self.change(|table| table.blobs[at].iter_mut().for_each(|arrival| arrival.bytes = to));
    }

    /// Nothing comes after what is there.
    pub fn end(&self, at: usize) {
        self.change(|table| table.blobs[at].iter_mut().for_each(|arrival| arrival.whole = true));
    }

    /// A blob will not come: all readers fail.
    pub fn give_up(&self) {
        self.change(|table| table.broken = true);
    }

    /// Whether a blob should be begun: not where the image has failed already.
    pub fn is_open(&self) -> bool {
        let table = self.table.lock();
        !table.broken && table.refused.is_none()
    }

    /// Whether more of a blob is wanted. Of the layer that could not be unpacked it is: its digest tells whether the image or
    /// what was sent is at fault.
    pub fn wants(&self, at: usize) -> bool {
        let table = self.table.lock();
        !table.broken && table.refused.is_none_or(|refused| refused == at)
    }

    fn change(&self, change: impl FnOnce(&mut Table)) {
        change(&mut self.table.lock());
        self.changed.notify_all();
    }

    /// Waits until there is more than the reader has, or all; then the file and how many bytes it has, and whether that is all.
    fn more_than(&self, at: usize, position: u64) -> io::Result<Arrival> {
        let mut table = self.table.lock();
        loop {
            if table.broken || table.refused.is_some() {
                return Err(io::Error::other("not all of the image came"));
            }
            match &table.blobs[at] {
                Some(arrival) if arrival.whole || arrival.bytes > position => return Ok(arrival.clone()),
                _ => self.changed.wait(&mut table),
            }
        }
    }
}

impl Source for Arrivals {
    fn open(&self, at: usize) -> Result<Box<dyn Read + Send + '_>, ImageError> {
        Ok(Box::new(Reader { arrivals: self, at, position: 0 }))
    }

    fn refuse(&self, at: usize) {
        self.change(|table| table.refused = table.refused.or(Some(at)));
    }
}

struct Reader<'a> {
    arrivals: &'a Arrivals,
    at: usize,
    position: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let arrival = self.arrivals.more_than(self.at, self.position)?;
            let there = usize::try_from(arrival.bytes.saturating_sub(self.position)).unwrap_or(usize::MAX);
            let length = buffer.len().min(there);
            let read = arrival.file.read_at(&mut buffer[..length], self.position)?;
            self.position += read as u64;
            // Nothing where something was: it begins anew, and what is told by now says so.
            if read > 0 || arrival.whole || buffer.is_empty() {
                return Ok(read);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// A file to write, and one to read the same.
    fn file() -> (File, File) {
        let file = tempfile::NamedTempFile::new().expect("create");
        (file.reopen().expect("open"), file.reopen().expect("open"))
    }

    #[test]
    fn reader_follows_to_the_end() {
        let (arrivals, (mut written, read)) = (Arrivals::new(2), file());
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut all = Vec::new();
                arrivals.open(1).expect("open").read_to_end(&mut all).map(|_| all)
            });
            arrivals.begin(1, read, 0);
            for (part, end) in [(b"one ", 4), (b"two ", 8), (b"last", 12)] {
                written.write_all(part).expect("write");
                arrivals.advance(1, end);
            }
            arrivals.end(1);
            assert_eq!(reader.join().expect("no panic").expect("all"), b"one two last");
        });
    }

    #[test]
    fn what_begins_anew_is_read_on_where_the_reader_was() {
        let (arrivals, (written, read)) = (Arrivals::new(1), file());
        arrivals.begin(0, read, 0);
        written.write_all_at(b"same", 0).expect("write");
        arrivals.advance(0, 4);
        let mut reader = arrivals.open(0).expect("open");
        let mut start = [0; 4];
        reader.read_exact(&mut start).expect("it is there");
        arrivals.advance(0, 0);
        written.set_len(0).expect("truncate");
        std::thread::scope(|scope| {
            let rest = scope.spawn(move || {
                let mut rest = Vec::new();
                reader.read_to_end(&mut rest).map(|_| rest)
            });
            written.write_all_at(b"same and more", 0).expect("write");
            arrivals.advance(0, 4);
            arrivals.advance(0, 13);
            arrivals.end(0);
            assert_eq!(rest.join().expect("no panic").expect("all"), b" and more");
        });
    }

    #[test]
    fn nobody_waits_for_what_will_not_come() {
        let arrivals = Arrivals::new(1);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| arrivals.open(0).expect("open").read(&mut [0]));
            arrivals.give_up();
            assert!(reader.join().expect("no panic").is_err());
        });
        assert!(!arrivals.is_open() && !arrivals.wants(0));
    }

    #[test]
    fn of_a_refused_image_the_guilty_layer_alone_goes_on() {
        let arrivals = Arrivals::new(3);
        arrivals.refuse(1);
        arrivals.refuse(2);
        assert!(!arrivals.is_open());
        assert_eq!([0, 1, 2].map(|at| arrivals.wants(at)), [false, true, false]);
        assert!(arrivals.open(0).expect("open").read(&mut [0]).is_err());
    }
}
