//! A tar archive, read entry by entry: POSIX, PAX and GNU headers.
//!
//! Owns what a header means; knows nothing of directories on disk. The crate `tar` decodes the fixed fields. The walk is our
//! own, because the crate reads long names and PAX records of any length into memory, splits PAX records at line ends (which
//! a capability may contain) and knows no PAX sparse files. Invariant: nothing that a header announces is believed: memory is
//! bounded by the constants here, whatever the archive says.

mod entry;
mod fault;
mod number;
mod records;
mod sparse;
mod writer;

pub use entry::{Attributes, Entry, Kind};
pub use fault::{ArchiveError, Fault, Name};
pub use sparse::Piece;
pub use writer::ArchiveWriter;

use records::Records;
use std::io::{BufRead, ErrorKind};

/// Bytes of a header, and what everything is padded to.
pub const BLOCK_BYTES: usize = 512;
/// The longest path that Linux takes (`PATH_MAX`).
pub const PATH_BYTES_MAX: u64 = 4096;
/// PAX records of one entry; Go's archive/tar has the same limit.
pub const RECORD_BYTES_MAX: u64 = 1 << 20;
/// Stretches of data of one sparse file.
pub const PIECES_MAX: usize = 1 << 18;

/// Reads entries off a stream.
#[derive(Debug)]
pub struct Archive<R> {
    input: R,
    /// Bytes of the current entry's data that were not read yet.
    data_left: u64,
    /// Zeros behind them.
    padding: u64,
}

impl<R: BufRead> Archive<R> {
    /// Starts at the first header.
    pub fn new(input: R) -> Self {
        Archive { input, data_left: 0, padding: 0 }
    }

    /// The next entry, `None` at the end; what was not read of the one before is skipped.
    ///
    /// # Errors
    /// A header that means nothing or is beyond a limit, or the stream's own.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ArchiveError> {
        let mut records = Records::default();
        loop {
            self.skip(self.data_left + self.padding)?;
            (self.data_left, self.padding) = (0, 0);
            let Some(header) = self.header()? else { return Ok(None) };
            let name = || Name::new(&header.path_bytes());
            let size = number::field(&header.as_old().size).ok_or_else(|| Fault::Number("size").at(name()))?;
            self.announce(size);
            match header.as_old().linkflag[0] {
                b'x' => records.read_pax(&self.small(RECORD_BYTES_MAX, name)?).map_err(|fault| fault.at(name()))?,
                // Defaults for the whole archive: image builders write none, `git archive` a comment.
                b'g' => {}
                b'L' => records.path = Some(text(self.small(PATH_BYTES_MAX + 1, name)?)),
                b'K' => records.link = Some(text(self.small(PATH_BYTES_MAX + 1, name)?)),
                _ => return self.entry(&header, records).map(Some),
            }
        }
    }

    /// A stretch of the current entry's data, empty at its end. `consume` says how much of it was used.
    ///
    /// # Errors
    /// The stream's, or that it ends too early.
    pub fn data(&mut self) -> Result<&[u8], ArchiveError> {
        if self.data_left == 0 {
            return Ok(&[]);
        }
        let left = usize::try_from(self.data_left).unwrap_or(usize::MAX);
        match retry(|| self.input.fill_buf().map(<[u8]>::len))? {
            0 => Err(ArchiveError::Truncated),
            _ => self.input.fill_buf().map(|chunk| &chunk[..chunk.len().min(left)]).map_err(ArchiveError::Read),
        }
    }

    /// Goes on behind the first `bytes` of what `data` gave.
    pub fn consume(&mut self, bytes: usize) {
        self.input.consume(bytes);
        self.data_left -= bytes as u64;
    }

    /// The stream, behind the last entry.
    pub fn into_inner(self) -> R {
        self.input
    }

    fn announce(&mut self, size: u64) {
        self.data_left = size;
        self.padding = (BLOCK_BYTES as u64 - size % BLOCK_BYTES as u64) % BLOCK_BYTES as u64;
    }

    fn entry(&mut self, header: &tar::Header, records: Records) -> Result<Entry, ArchiveError> {
        let name = records.name().cloned().unwrap_or_else(|| header.path_bytes().into_owned());
        let fail = |fault: Fault| fault.at(Name::new(&name));
        if let Some(size) = records.size {
            self.announce(size);
        }
        let mut entry = Entry::decode(header, records).map_err(fail)?;
        match &mut entry.kind {
            Kind::File { size, pieces: Some(pieces) } => {
                if header.as_old().linkflag[0] == b'S' {
                    *pieces = self.gnu_map(header).map_err(|error| error.or_at(&name))?;
                } else if pieces.is_empty() && entry.map_in_data {
                    *pieces = self.map_in_data().map_err(|error| error.or_at(&name))?;
                }
                sparse::check(pieces, *size, self.data_left).map_err(fail)?;
            }
            Kind::File { size, pieces: None } => *size = self.data_left,
            _ => {}
        }
        Ok(entry)
    }

    /// Headers of the old GNU sparse format that continue the first one.
    fn gnu_map(&mut self, header: &tar::Header) -> Result<Vec<Piece>, ArchiveError> {
        let gnu = header.as_gnu().ok_or_else(|| ArchiveError::from(Fault::SparseMap))?;
        let mut pieces = Vec::new();
        sparse::read_gnu(&gnu.sparse, &mut pieces)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = tar::GnuExtSparseHeader::new();
            self.fill(block.as_mut_bytes())?;
            sparse::read_gnu(block.sparse(), &mut pieces)?;
            more = block.is_extended();
        }
        Ok(pieces)
    }

    /// The map of PAX sparse format 1.0, which precedes the data: decimal numbers, one a line, padded to a block.
    fn map_in_data(&mut self) -> Result<Vec<Piece>, ArchiveError> {
        let mut map = sparse::MapReader::default();
        loop {
            if self.data_left < BLOCK_BYTES as u64 {
                return Err(Fault::SparseMap.into());
            }
            let mut block = [0; BLOCK_BYTES];
            self.fill(&mut block)?;
            self.data_left -= BLOCK_BYTES as u64;
            if let Some(pieces) = map.feed(&block)? {
                return Ok(pieces);
            }
        }
    }

    /// The whole data of a header that describes the next one.
    fn small(&mut self, max: u64, name: impl Fn() -> Name) -> Result<Vec<u8>, ArchiveError> {
        if self.data_left > max {
            return Err(Fault::Oversized { bytes: self.data_left, max }.at(name()));
        }
        let mut data = vec![0; self.data_left as usize];
        self.fill(&mut data)?;
        self.data_left = 0;
        Ok(data)
    }

    /// The next header; `None` at the end of the archive: a block of zeros, or of the stream.
    fn header(&mut self) -> Result<Option<tar::Header>, ArchiveError> {
        if retry(|| self.input.fill_buf().map(<[u8]>::len))? == 0 {
            return Ok(None);
        }
        let mut header = tar::Header::new_old();
        self.fill(header.as_mut_bytes())?;
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        match number::field(&header.as_old().cksum) == Some(checksum(header.as_bytes())) {
            true => Ok(Some(header)),
            false => Err(ArchiveError::Checksum { name: Name::new(&header.path_bytes()) }),
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), ArchiveError> {
        self.input.read_exact(buffer).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => ArchiveError::Truncated,
            _ => ArchiveError::Read(error),
        })
    }

    fn skip(&mut self, mut bytes: u64) -> Result<(), ArchiveError> {
        while bytes > 0 {
            let have = retry(|| self.input.fill_buf().map(<[u8]>::len))?;
            if have == 0 {
                return Err(ArchiveError::Truncated);
            }
            let step = have.min(usize::try_from(bytes).unwrap_or(usize::MAX));
            self.input.consume(step);
            bytes -= step as u64;
        }
        Ok(())
    }
}

fn retry(mut read: impl FnMut() -> std::io::Result<usize>) -> Result<usize, ArchiveError> {
    loop {
        match read() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other.map_err(ArchiveError::Read),
        }
    }
}

/// The sum of all bytes, those of the sum itself taken as spaces.
fn checksum(header: &[u8; BLOCK_BYTES]) -> u64 {
    let own = 148..156;
    let sum = header.iter().enumerate().map(|(at, byte)| if own.contains(&at) { b' ' } else { *byte });
    sum.map(u64::from).sum()
}

/// A name without the zero that ends it.
fn text(mut data: Vec<u8>) -> Vec<u8> {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    data.truncate(end);
    data
}
