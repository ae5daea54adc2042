//! Files from the host into a container.
//!
//! Owns where a copy goes inside. Invariants: a path of the container is resolved by the kernel below a descriptor of its root; what is written
//! goes through the container's own mount, or through one that nobody else sees while it does not run.

use super::enter::inside_while;
use super::error::{Error, Result};
use super::extract::{Keep, extract};
use super::filesystem;
use super::ids::Ids;
use super::pack::pack;
use super::record::Container;
use super::start;
use crate::oci::resolve;
use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, PipeReader, PipeWriter};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// What a packed file or directory is called until its place is known.
const PARCEL: &str = "parcel";
/// Bytes that are handed on at once.
const BUFFER_BYTES: usize = 256 << 10;

/// What goes into a container.
#[derive(Debug, Clone, Copy)]
pub enum Goods<'a> {
    /// A file or directory of the host; a directory with `/.` behind it means its content.
    Host {
        /// Where it lies.
        path: &'a Path,
        /// Follow a link that the path ends in.
        follow: bool,
    },
    /// An archive on standard input.
    Archive,
}

/// What decides where it goes.
struct Parcel {
    name: OsString,
    is_dir: bool,
    is_content: bool,
}

impl Goods<'_> {
    fn parcel(&self) -> Result<Option<Parcel>> {
        let Goods::Host { path, follow } = *self else { return Ok(None) };
        let found = if follow { fs::metadata(path) } else { fs::symlink_metadata(path) };
        let found = found.map_err(Error::io("find", path))?;
        let bytes = path.as_os_str().as_bytes();
        let is_content = bytes == b"." || bytes.ends_with(b"/.");
        if is_content && !found.is_dir() {
            return Err(Error::io("read", path)(io::ErrorKind::NotADirectory));
        }
        // `..` and `/` have a name too, but not in what was written.
        let whole = fs::canonicalize(path).map_err(Error::io("find", path));
        let name = match path.file_name() {
            Some(name) => name.to_owned(),
            None => whole?.file_name().unwrap_or(OsStr::new(".")).to_owned(),
        };
        Ok(Some(Parcel { name, is_dir: found.is_dir(), is_content }))
    }

    fn send(&self, mut pipe: PipeWriter) -> Result<()> {
        match *self {
            Goods::Host { path, follow } => {
                pack(path, OsStr::new(PARCEL), follow, BufWriter::with_capacity(BUFFER_BYTES, pipe))
            }
            Goods::Archive => {
                let path = Path::new("standard input");
                io::copy(&mut io::stdin().lock(), &mut pipe).map(drop).map_err(Error::io("pass on", path))
            }
        }
    }
}

/// Copies into a container, whether it runs or not. Whoever calls has one thread.
///
/// # Errors
/// [`Error::Destination`]; what cannot be read or written. What was written until then stays.
pub fn into_container(store: &Path, container: &Container, goods: Goods<'_>, to: &Path, keep: Keep) -> Result<()> {
    let parcel = goods.parcel()?;
    let (reading, writing) = io::pipe().map_err(Error::io("make a pipe for", to))?;
    if container.state()?.runs() {
        let stopped = || Error::NotRunning { name: container.record.name.to_string() };
        let inner = container.oci_root().load(container.record.id.as_str())?;
        let init = inner.init()?.ok_or_else(stopped)?;
        let user = if container.record.rootless { CloneFlags::CLONE_NEWUSER } else { CloneFlags::empty() };
        let put = || {
            let root = Path::new("/");
            let root = File::open(root).map_err(Error::io("open", root))?;
            put(root.as_fd(), to, parcel.as_ref(), reading, keep)
        };
        return exchange(init.as_fd(), user | CloneFlags::CLONE_NEWNS, put, goods, writing);
    }
    let ids = Ids::choose();
    let mounted = start::parts(store, container)?.mount(&ids)?;
    let user = if ids == Ids::Host { CloneFlags::empty() } else { CloneFlags::CLONE_NEWUSER };
    let put = || put(mounted.mount.as_fd(), to, parcel.as_ref(), reading, keep);
    let outcome = exchange(mounted.process.as_fd(), user, put, goods, writing);
    // The last descriptor of the mount goes, and with it the server, which brings the layer to the disk.
    drop((mounted.mount, mounted.device));
    filesystem::reap(mounted.server);
    outcome
}

fn exchange(
    process: BorrowedFd<'_>,
    namespaces: CloneFlags,
    put: impl FnOnce() -> Result<()>,
    goods: Goods<'_>,
    writing: PipeWriter,
) -> Result<()> {
    // The child has the writing end too: it must not wait for itself.
    let writing = std::cell::Cell::new(Some(writing));
    let act = || {
        drop(writing.take());
        put()
    };
    inside_while(process, namespaces, act, || writing.take().map_or(Ok(()), |writing| goods.send(writing)))
}

/// Inside: finds the place, and unpacks there.
fn put(root: BorrowedFd<'_>, to: &Path, parcel: Option<&Parcel>, input: PipeReader, keep: Keep) -> Result<()> {
    let (dir, top) = place(root, to, parcel)?;
    let dir = openat(&dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let dir = dir.map_err(Error::io("open", to))?;
    rustix::process::umask(Mode::empty());
    extract(BufReader::with_capacity(BUFFER_BYTES, input), dir.as_fd(), top.as_deref(), keep)
}

/// The directory to write into, and the name there. Source: `docker cp`, "Extended description".
fn place(root: BorrowedFd<'_>, to: &Path, parcel: Option<&Parcel>) -> Result<(OwnedFd, Option<OsString>)> {
    let refused = |why: &'static str| Error::Destination { path: to.to_owned(), why };
    let found = resolve::find(root, to)?;
    let is_dir = found.as_ref().map(resolve::is_directory).transpose()?;
    let bytes = to.as_os_str().as_bytes();
    let wants_dir = bytes.ends_with(b"/") || bytes.ends_with(b"/.");
    match (found, parcel) {
        (Some(dir), None) if is_dir == Some(true) => Ok((dir, None)),
        (_, None) => Err(refused("an archive goes into a directory that is there")),
        (Some(dir), Some(parcel)) if is_dir == Some(true) => {
            let top = if parcel.is_content { OsStr::new(".") } else { &parcel.name };
            Ok((dir, Some(top.to_owned())))
        }
        (Some(_), Some(parcel)) if parcel.is_dir => Err(refused("a directory cannot take the place of a file")),
        (Some(_), Some(_)) if wants_dir => Err(refused("it is no directory")),
        (None, Some(parcel)) if !parcel.is_dir && wants_dir => Err(refused("the directory does not exist")),
        (_, Some(_)) => file_place(root, to).map(|(dir, name)| (dir, Some(name))),
    }
}

/// The directory and the name of what is no directory: where a link ends, whether something is there or not.
fn file_place(root: BorrowedFd<'_>, to: &Path) -> Result<(OwnedFd, OsString)> {
    let refused = |why: &'static str| Error::Destination { path: to.to_owned(), why };
    let mut whole = Path::new("/").join(to);
    for _ in 0..resolve::LINKS_MAX {
        let name = whole.file_name().ok_or_else(|| refused("it has no name"))?.to_owned();
        // With its `..`, which the kernel resolves behind the links before it.
        let before = whole.parent().unwrap_or(Path::new("/")).to_owned();
        let dir = resolve::find(root, &before)?.ok_or_else(|| refused("its directory does not exist"))?;
        if !resolve::is_directory(&dir)? {
            return Err(refused("what should be its directory is a file"));
        }
        match readlinkat(&dir, &name, Vec::new()) {
            Ok(link) => whole = before.join(OsStr::from_bytes(link.as_bytes())),
            Err(Errno::INVAL | Errno::NOENT) => return Ok((dir, name)),
            Err(errno) => return Err(Error::io("look at", to)(errno)),
        }
    }
    Err(Error::TooManyLinks { path: to.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_is_followed_to_where_it_ends_inside_the_root() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("root");
        for name in ["root/real/deep", "root/etc", "etc"] {
            fs::create_dir_all(home.path().join(name)).unwrap();
        }
        fs::write(root.join("etc/file"), "").unwrap();
        for (target, name) in [
            ("/etc/file", "absolute"),
            ("../../../etc/file", "above"),
            ("real/deep", "way"),
            ("../beside", "real/deep/relative"),
            ("/etc/none", "dangling"),
            ("dangling", "twice"),
            ("loop", "loop"),
            ("/none/x", "nowhere"),
        ] {
            symlink(target, root.join(name)).unwrap();
        }
        let opened = File::open(&root).unwrap();
        let found = |to: &str| {
            file_place(opened.as_fd(), Path::new(to)).map(|(dir, name)| {
                let dir = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&dir))).unwrap();
                dir.join(name).strip_prefix(&root).unwrap().to_str().unwrap().to_owned()
            })
        };
        for (to, place) in [
            ("/etc/file", "etc/file"),
            ("absolute", "etc/file"),
            ("/above", "etc/file"),
            ("/way/relative", "real/beside"),
            ("/way/../new", "real/new"),
            ("/dangling", "etc/none"),
            ("/twice", "etc/none"),
        ] {
            assert_eq!(found(to).unwrap(), place, "{to}");
        }
        assert!(matches!(found("/loop"), Err(Error::TooManyLinks { .. })));
        assert!(matches!(found("/nowhere"), Err(Error::Destination { .. })));
    }
}
