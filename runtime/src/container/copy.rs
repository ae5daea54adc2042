//! Files from a container to the host.
//!
//! Owns docker's rules of where a copy goes. Invariant: the container's side is read by the library alone, so no link leads out of it, and a running
//! container is neither asked nor disturbed.

use super::error::{Error, Result};
use super::extract::{Keep, extract};
use super::tree::{Node, Tree};
use lamina_fs::union::Kind;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, ErrorKind, Write};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Bytes that are handed on at once.
const BUFFER_BYTES: usize = 256 << 10;

/// What is to be copied out of a tree.
#[derive(Debug)]
pub struct Source<'a> {
    /// Where it lies in the container; a directory with `/.` behind it means its content.
    pub path: &'a Path,
    /// Follow a link that the path ends in.
    pub follow: bool,
}

impl Source<'_> {
    fn is_content(&self) -> bool {
        let bytes = self.path.as_os_str().as_bytes();
        bytes == b"." || bytes.ends_with(b"/.")
    }

    fn find(&self, tree: &Tree) -> Result<Node> {
        let node = tree.find(self.path, self.follow || self.is_content())?;
        match self.is_content() && node.kind() != Kind::Directory {
            true => Err(Error::Layers { sentence: format!("{}: not a directory", self.path.display()) }),
            false => Ok(node),
        }
    }

    /// What an archive of it is called: the root of a container has no name.
    fn name(&self) -> OsString {
        let name = self.path.file_name().filter(|_| !self.is_content());
        name.unwrap_or(OsStr::new(".")).to_owned()
    }
}

/// Writes an archive of a file, or of a directory and everything in it. Answers how many sockets were left out.
///
/// # Errors
/// What cannot be read or written.
pub fn to_archive(tree: &Tree, source: &Source<'_>, out: impl Write) -> Result<u64> {
    let node = source.find(tree)?;
    tree.archive(&node, &source.name(), BufWriter::with_capacity(BUFFER_BYTES, out))
}

/// Copies to the host: into a directory that is there, or to a name that is not. Answers how many sockets were left out.
///
/// # Errors
/// [`Error::Destination`]; what cannot be read or written.
pub fn to_host(tree: &Tree, source: &Source<'_>, to: &Path, keep: Keep) -> Result<u64> {
    let node = source.find(tree)?;
    let (dir, name) = destination(&node, source, to)?;
    let into = File::open(&dir).map_err(Error::io("open", &dir))?;
    let (reading, writing) = io::pipe().map_err(Error::io("make a pipe for", &dir))?;
    let (written, extracted) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| extract(BufReader::with_capacity(BUFFER_BYTES, reading), into.as_fd(), None, keep));
        // The writing end goes with it, so that the other thread meets the end.
        let written = tree.archive(&node, &name, BufWriter::with_capacity(BUFFER_BYTES, writing));
        (written, reader.join())
    });
    let extracted = extracted.unwrap_or_else(|_| Err(Error::Layers { sentence: "a thread of the copy failed".into() }));
    match written {
        // Whoever stopped reading has said why.
        Err(Error::Unwritten { cause, .. }) if cause.kind() == ErrorKind::BrokenPipe && extracted.is_err() => {
            extracted.map(|()| 0)
        }
        Err(error) => Err(error),
        Ok(sockets) => extracted.map(|()| sockets),
    }
}

/// The directory to write into, and the name there. Source: `docker cp`, "Extended description".
fn destination(node: &Node, source: &Source<'_>, to: &Path) -> Result<(PathBuf, OsString)> {
    let refused = |why: &'static str| Error::Destination { path: to.to_owned(), why };
    let is_dir = node.kind() == Kind::Directory;
    match fs::metadata(to) {
        Ok(found) if found.is_dir() => Ok((to.to_owned(), source.name())),
        Ok(_) if is_dir => Err(refused("a directory cannot take the place of a file")),
        Ok(_) if to.as_os_str().as_bytes().ends_with(b"/") => Err(refused("it is no directory")),
        Ok(_) => split(&fs::canonicalize(to).map_err(Error::io("find", to))?),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if !is_dir && to.as_os_str().as_bytes().ends_with(b"/") {
                return Err(refused("the directory does not exist"));
            }
            let (dir, name) = split(to)?;
            if !dir.is_dir() {
                return Err(refused("its directory does not exist"));
            }
            Ok((dir, name))
        }
        Err(error) => Err(Error::io("look at", to)(error)),
    }
}

fn split(path: &Path) -> Result<(PathBuf, OsString)> {
    let refused = || Error::Destination { path: path.to_owned(), why: "it has no name" };
    let name = path.file_name().ok_or_else(refused)?.to_owned();
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((dir.to_owned(), name))
}
