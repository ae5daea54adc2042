//! PAX records: `LENGTH KEY=VALUE\n`, the value of any bytes. See pax(1), and GNU tar's manual for the `GNU.sparse` keys.
//!
//! Invariant: a record that does not parse is an error; a key that is not known is passed over.

use super::PIECES_MAX;
use super::fault::{Fault, Name};
use super::number::{decimal, time};
use super::sparse::Piece;
use crate::sys::stat::Timestamp;

/// `XATTR_NAME_MAX`
const XATTR_NAME_BYTES_MAX: usize = 255;
/// `XATTR_SIZE_MAX`
const XATTR_VALUE_BYTES_MAX: usize = 65536;
const XATTR_KEY: &[u8] = b"SCHILY.xattr.";

/// What the headers before an entry's own said of it.
#[derive(Debug, Default)]
pub struct Records {
    pub path: Option<Vec<u8>>,
    /// The true name of a sparse file: GNU tar puts a made-up one where others read it.
    pub sparse_name: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Timestamp>,
    pub atime: Option<Timestamp>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The size with its holes; `Some` makes the file sparse.
    pub real_size: Option<u64>,
    pub pieces: Vec<Piece>,
    /// The map stands before the data (format 1.0).
    pub map_in_data: bool,
}

impl Records {
    /// The name, where it is not the header's own.
    pub fn name(&self) -> Option<&Vec<u8>> {
        self.sparse_name.as_ref().or(self.path.as_ref())
    }

    /// Reads the data of a PAX header; the last of several equal keys counts.
    pub fn read_pax(&mut self, data: &[u8]) -> Result<(), Fault> {
        let mut at = 0;
        while at < data.len() {
            let broken = || Fault::Records { at };
            let rest = &data[at..];
            let space = rest.iter().take(20).position(|byte| *byte == b' ').ok_or_else(broken)?;
            let length = decimal(&rest[..space]).and_then(|length| usize::try_from(length).ok()).ok_or_else(broken)?;
            if length <= space + 1 || length > rest.len() || rest[length - 1] != b'\n' {
                return Err(broken());
            }
            let record = &rest[space + 1..length - 1];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
            self.read(&record[..equals], &record[equals + 1..]).ok_or_else(broken)??;
            at += length;
        }
        Ok(())
    }

    /// One record; `None` where its value does not parse.
    fn read(&mut self, key: &[u8], value: &[u8]) -> Option<Result<(), Fault>> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.mtime = Some(time(value)?),
            b"atime" => self.atime = Some(time(value)?),
            b"GNU.sparse.major" => self.map_in_data = value == b"1",
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.real_size = Some(decimal(value)?),
            b"GNU.sparse.map" => self.pieces = map(value)?,
            b"GNU.sparse.offset" => {
                (self.pieces.len() < PIECES_MAX).then_some(())?;
                self.pieces.push(Piece { offset: decimal(value)?, bytes: 0 });
            }
            b"GNU.sparse.numbytes" => self.pieces.last_mut()?.bytes = decimal(value)?,
            _ => {
                if let Some(name) = key.strip_prefix(XATTR_KEY) {
                    return Some(self.xattr(name, value));
                }
            }
        }
        Some(Ok(()))
    }

    fn xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), Fault> {
        let fits = (1..=XATTR_NAME_BYTES_MAX).contains(&name.len()) && value.len() <= XATTR_VALUE_BYTES_MAX;
        if !fits || name.contains(&0) {
            let (name_max, value_max) = (XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX);
            return Err(Fault::Attribute { name: Name::new(name), name_max, value_max });
        }
        self.xattrs.retain(|(known, _)| known != name);
        self.xattrs.push((name.to_vec(), value.to_vec()));
        Ok(())
    }
}

/// `OFFSET,BYTES,OFFSET,BYTES...`
fn map(value: &[u8]) -> Option<Vec<Piece>> {
    let numbers: Vec<u64> = value.split(|byte| *byte == b',').map(decimal).collect::<Option<_>>()?;
    let even = numbers.len().is_multiple_of(2) && numbers.len() / 2 <= PIECES_MAX;
    even.then(|| numbers.chunks(2).map(|pair| Piece { offset: pair[0], bytes: pair[1] }).collect())
}
