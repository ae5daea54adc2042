//! Writes an archive: POSIX headers, with PAX records only for what they cannot hold.
//!
//! Invariant: equal entries give equal bytes: records are sorted, nothing of the machine or the clock goes in.

use super::BLOCK_BYTES;
use super::entry::{Entry, Kind};
use crate::sys::stat::Timestamp;
use std::io::{self, Write};

/// The largest number of a seven-digit octal field.
const OCTAL_7_MAX: u64 = 0o7777777;
/// The largest number of an eleven-digit octal field.
const OCTAL_11_MAX: u64 = 0o77777777777;
const NAME_FIELD_BYTES: usize = 100;

/// Writes entries to a stream.
#[derive(Debug)]
pub struct ArchiveWriter<W> {
    out: W,
    /// Data that the last header announced and that is still to come.
    data_left: u64,
    padding: usize,
}

impl<W: Write> ArchiveWriter<W> {
    /// Begins an archive.
    pub fn new(out: W) -> Self {
        ArchiveWriter { out, data_left: 0, padding: 0 }
    }

    /// Writes the header; as many bytes of data as a file's size says must follow.
    ///
    /// # Errors
    /// The stream's; or the data of the entry before is not complete.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.end_data()?;
        let records = records(entry);
        if !records.is_empty() {
            let mut header = blank(b'x');
            fill(&mut header.as_old_mut().name, b"PaxHeaders/entry");
            octal(&mut header.as_old_mut().mode, 0o644);
            octal(&mut header.as_old_mut().size, records.len() as u64);
            self.header(header)?;
            self.out.write_all(&records)?;
            self.pad(padding(records.len() as u64))?;
        }
        self.header(header(entry))?;
        if let Kind::File { size, .. } = entry.kind {
            (self.data_left, self.padding) = (size, padding(size));
        }
        Ok(())
    }

    /// Writes data of the last entry.
    ///
    /// # Errors
    /// The stream's; or it is more than was announced.
    pub fn data(&mut self, data: &[u8]) -> io::Result<()> {
        let left = self.data_left.checked_sub(data.len() as u64);
        self.data_left = left.ok_or_else(|| io::Error::other("a file grew while it was read"))?;
        self.out.write_all(data)
    }

    /// Ends the archive and gives the stream back.
    ///
    /// # Errors
    /// The stream's; or the last entry's data is not complete.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_data()?;
        self.pad(BLOCK_BYTES * 2)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn end_data(&mut self) -> io::Result<()> {
        if self.data_left > 0 {
            return Err(io::Error::other("a file shrank while it was read"));
        }
        let padding = std::mem::take(&mut self.padding);
        self.pad(padding)
    }

    fn pad(&mut self, bytes: usize) -> io::Result<()> {
        self.out.write_all(&[0; BLOCK_BYTES * 2][..bytes])
    }

    fn header(&mut self, mut header: tar::Header) -> io::Result<()> {
        header.set_cksum();
        self.out.write_all(header.as_bytes())
    }
}

fn padding(size: u64) -> usize {
    ((BLOCK_BYTES as u64 - size % BLOCK_BYTES as u64) % BLOCK_BYTES as u64) as usize
}

fn blank(kind: u8) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    let old = header.as_old_mut();
    old.linkflag[0] = kind;
    octal(&mut old.mode, 0);
    octal(&mut old.uid, 0);
    octal(&mut old.gid, 0);
    octal(&mut old.size, 0);
    octal(&mut old.mtime, 0);
    header
}

fn header(entry: &Entry) -> tar::Header {
    let attributes = &entry.attributes;
    let (kind, link, size, rdev) = match &entry.kind {
        Kind::File { size, .. } => (b'0', &[][..], *size, 0),
        Kind::HardLink { target } => (b'1', target.as_slice(), 0, 0),
        Kind::Symlink { target } => (b'2', target.as_slice(), 0, 0),
        Kind::Dir => (b'5', &[][..], 0, 0),
        Kind::Special { format: libc::S_IFCHR, rdev } => (b'3', &[][..], 0, *rdev),
        Kind::Special { format: libc::S_IFBLK, rdev } => (b'4', &[][..], 0, *rdev),
        Kind::Special { .. } => (b'6', &[][..], 0, 0),
    };
    let mut header = blank(kind);
    let old = header.as_old_mut();
    fill(&mut old.name, &entry.path);
    fill(&mut old.linkname, link);
    octal(&mut old.mode, u64::from(attributes.mode));
    octal(&mut old.uid, fitting(u64::from(attributes.uid), OCTAL_7_MAX));
    octal(&mut old.gid, fitting(u64::from(attributes.gid), OCTAL_7_MAX));
    octal(&mut old.size, fitting(size, OCTAL_11_MAX));
    octal(&mut old.mtime, fitting(u64::try_from(attributes.mtime.seconds).unwrap_or(0), OCTAL_11_MAX));
    if let Some(ustar) = header.as_ustar_mut() {
        octal(&mut ustar.dev_major, u64::from(rustix::fs::major(rdev)));
        octal(&mut ustar.dev_minor, u64::from(rustix::fs::minor(rdev)));
    }
    header
}

/// What does not fit stands in a record; the field then says nothing.
fn fitting(value: u64, max: u64) -> u64 {
    if value > max { 0 } else { value }
}

fn fill(field: &mut [u8], text: &[u8]) {
    let bytes = text.len().min(field.len());
    field[..bytes].copy_from_slice(&text[..bytes]);
}

fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    fill(field, format!("{value:0digits$o}").as_bytes());
}

/// The PAX records of an entry, sorted by key; none where the header holds everything.
fn records(entry: &Entry) -> Vec<u8> {
    let Entry { path, kind, attributes, .. } = entry;
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut add = |key: &[u8], value: Vec<u8>| records.push((key.to_vec(), value));
    // Names of any bytes go into the header as they are; only what is too long needs a record.
    if path.len() > NAME_FIELD_BYTES {
        add(b"path", path.clone());
    }
    if let Kind::HardLink { target } | Kind::Symlink { target } = kind
        && target.len() > NAME_FIELD_BYTES
    {
        add(b"linkpath", target.clone());
    }
    if let Kind::File { size, .. } = kind
        && *size > OCTAL_11_MAX
    {
        add(b"size", size.to_string().into_bytes());
    }
    for (key, id) in [(&b"uid"[..], attributes.uid), (b"gid", attributes.gid)] {
        if u64::from(id) > OCTAL_7_MAX {
            add(key, id.to_string().into_bytes());
        }
    }
    let Timestamp { seconds, nanoseconds } = attributes.mtime;
    if nanoseconds != 0 || !(0..=OCTAL_11_MAX as i64).contains(&seconds) {
        add(b"mtime", time(attributes.mtime).into_bytes());
    }
    for (name, value) in &attributes.xattrs {
        add(&[b"SCHILY.xattr.", name.as_slice()].concat(), value.clone());
    }
    records.sort_unstable();
    records.iter().flat_map(|(key, value)| record(key, value)).collect()
}

/// One record, its length written before it and counted with itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

fn time(at: Timestamp) -> String {
    let (sign, seconds, nanoseconds) = match (at.seconds < 0, at.nanoseconds) {
        (false, nanoseconds) => ("", at.seconds.unsigned_abs(), nanoseconds),
        (true, 0) => ("-", at.seconds.unsigned_abs(), 0),
        (true, nanoseconds) => ("-", (at.seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
    };
    match nanoseconds {
        0 => format!("{sign}{seconds}"),
        _ => format!("{sign}{seconds}.{nanoseconds:09}").trim_end_matches('0').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::archive::{Archive, Attributes};

    #[test]
    fn what_is_written_is_read_back() {
        let attributes = |mtime| Attributes {
            mode: 0o4751,
            uid: 3_000_000,
            gid: 7,
            mtime,
            atime: None,
            xattrs: vec![
                (b"security.capability".to_vec(), b"\0\n=\xff 12".to_vec()),
                (b"user.b".to_vec(), vec![b'v'; 999]),
            ],
        };
        let at = |seconds, nanoseconds| attributes(Timestamp { seconds, nanoseconds });
        let long = vec![b'n'; 300];
        let entries = [
            (vec![b'd', b'/'], Kind::Dir, at(1, 0)),
            (long.clone(), Kind::File { size: 5, pieces: None }, at(-5, 5)),
            (b"\xff".to_vec(), Kind::Symlink { target: long.clone() }, at(1 << 40, 999_999_999)),
            (b"h".to_vec(), Kind::HardLink { target: long }, at(-1, 0)),
            (
                b"c".to_vec(),
                Kind::Special { format: libc::S_IFCHR, rdev: rustix::fs::makedev(4095, 1_048_575) },
                at(0, 0),
            ),
            (b"p".to_vec(), Kind::Special { format: libc::S_IFIFO, rdev: 0 }, at(0, 1)),
        ];
        let entries = entries.map(|(path, kind, attributes)| Entry { path, kind, attributes, map_in_data: false });
        let mut writer = ArchiveWriter::new(Vec::new());
        for entry in &entries {
            writer.entry(entry).expect("header");
            if matches!(entry.kind, Kind::File { .. }) {
                writer.data(b"12345").expect("data");
            }
        }
        let bytes = writer.finish().expect("finish");
        assert_eq!(bytes.len() % BLOCK_BYTES, 0);
        let mut archive = Archive::new(bytes.as_slice());
        for expected in entries {
            assert_eq!(archive.next_entry().expect("read"), Some(expected));
        }
        assert_eq!(archive.next_entry().expect("read"), None);
    }

    #[test]
    fn length_of_a_record_counts_itself() {
        assert_eq!(record(b"k", b"vvv"), b"8 k=vvv\n");
        assert_eq!(record(b"k", &[b'v'; 93]).len(), 99);
        assert_eq!(record(b"k", &[b'v'; 94]).len(), 101);
    }
}
