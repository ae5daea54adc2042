//! Where in the layer the next entry goes: the directories above it, open.
//!
//! Owns making, replacing and hiding names. Archives list a directory's entries together, so descriptors of the current
//! path are kept and a name costs one lookup. A directory gets its attributes when the path leaves it: until then it is
//! private and its children inherit nothing from it. Invariant: each step down is one component, never through a link.

use super::dress::Dresser;
use super::error::ApplyError;
use super::path::Components;
use super::usage::{Usage, measure};
use crate::error::{Error, Result};
use crate::layer::archive::{Attributes, Name};
use crate::layer::whiteout::{OPAQUE_FILE, OPAQUE_XATTRS, dot_name};
use crate::layer::work::remove_tree;
use crate::sys::rename::At;
use crate::sys::stat::{Stat, Timestamp};
use crate::sys::{node, open, stat};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// The mode of a directory until it is dressed.
const DIR_MODE: u32 = 0o700;

/// A directory of the current path.
#[derive(Debug)]
struct Frame {
    name: OsString,
    fd: OwnedFd,
    /// Made here and not dressed yet: what is created in it inherits nothing.
    plain: bool,
    dress: Dress,
}

/// What a directory gets when the path leaves it.
#[derive(Debug)]
enum Dress {
    /// What its entry says, and the mode it was made with where nothing was inherited.
    Entry { attributes: Attributes, born: Option<u32> },
    /// It was dressed before: its times as they were.
    Again(Stat),
}

/// The current place in a layer.
#[derive(Debug)]
pub struct Place<'a> {
    root: BorrowedFd<'a>,
    frames: Vec<Frame>,
    dresser: Dresser,
    usage: Usage,
    implicit: HashSet<Vec<u8>>,
    root_dress: Option<Attributes>,
    /// Devices cannot be made here: whiteouts are `.wh.` files.
    dot_whiteouts: bool,
}

/// What a directory without an entry looks like until `inherit` knows better.
fn implicit_attributes() -> Attributes {
    let mtime = Timestamp::default();
    Attributes { mode: 0o755, uid: 0, gid: 0, mtime, atime: None, xattrs: Vec::new() }
}

impl<'a> Place<'a> {
    /// Begins in the root.
    pub fn new(root: BorrowedFd<'a>, dresser: Dresser) -> Self {
        let (usage, implicit) = (Usage::DIR, HashSet::new());
        Place { root, frames: Vec::new(), dresser, usage, implicit, root_dress: None, dot_whiteouts: false }
    }

    /// What was written so far.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Takes the attributes of the layer's root, for the end.
    pub fn dress_root(&mut self, attributes: &Attributes) -> Result<(), ApplyError> {
        self.root_dress = Some(attributes.clone());
        Ok(())
    }

    /// Goes to a directory, making what is missing.
    pub fn go(&mut self, parents: &[&OsStr]) -> Result<&mut Self, ApplyError> {
        let common = self.frames.iter().zip(parents).take_while(|(frame, name)| frame.name == **name).count();
        self.leave_to(common)?;
        for name in &parents[common..] {
            self.step(name)?;
        }
        Ok(self)
    }

    fn step(&mut self, name: &OsStr) -> Result<(), ApplyError> {
        match open::open_dir(self.here(), name) {
            Ok(fd) => self.enter_again(name, fd)?,
            Err(error) if error.is(libc::ENOENT) => {
                self.make_dir(name, false)?;
                self.note_implicit();
            }
            Err(error) if error.is(libc::ENOTDIR) || error.is(libc::ELOOP) => {
                match stat::stat_at(self.here(), name)? {
                    // What is below takes the place of what the whiteout hides.
                    Some(found) if found.is_whiteout_device() => {
                        open::unlink(self.here(), name)?;
                        self.usage -= Usage::NODE;
                        self.make_dir(name, true)?;
                        self.note_implicit();
                    }
                    _ => return Err(ApplyError::ParentNotDirectory { parent: Name::new(&self.path(name)) }),
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Makes a directory that must not exist and goes into it.
    fn make_dir(&mut self, name: &OsStr, opaque: bool) -> Result<(), ApplyError> {
        open::make_dir(self.here(), name, DIR_MODE)?;
        self.enter_new(name)?;
        if opaque { self.make_opaque() } else { Ok(()) }
    }

    fn enter_new(&mut self, name: &OsStr) -> Result<(), ApplyError> {
        self.usage += Usage::DIR;
        let fd = open::open_dir(self.here(), name)?;
        let born = self.here_is_plain().then_some(DIR_MODE);
        let dress = Dress::Entry { attributes: implicit_attributes(), born };
        self.frames.push(Frame { name: name.to_owned(), fd, plain: true, dress });
        Ok(())
    }

    /// Goes into a directory that was left before.
    fn enter_again(&mut self, name: &OsStr, fd: OwnedFd) -> Result<(), ApplyError> {
        let found = stat::stat_fd(fd.as_fd())?;
        if found.mode & 0o700 != 0o700 {
            node::set_mode(fd.as_fd(), 0o700)?;
        }
        self.frames.push(Frame { name: name.to_owned(), fd, plain: false, dress: Dress::Again(found) });
        Ok(())
    }

    fn note_implicit(&mut self) {
        let path = self.path(OsStr::new(""));
        self.implicit.insert(path);
    }

    /// The path of a name here, or with an empty name of this place.
    fn path(&self, name: &OsStr) -> Vec<u8> {
        let names = self.frames.iter().map(|frame| frame.name.as_bytes());
        let name = Some(name.as_bytes()).filter(|name| !name.is_empty());
        names.chain(name).collect::<Vec<_>>().join(&b'/')
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.frames.last().map_or(self.root, |frame| frame.fd.as_fd())
    }

    fn here_is_plain(&self) -> bool {
        self.frames.last().map_or(self.dresser.root_is_plain, |frame| frame.plain)
    }

    fn leave_to(&mut self, depth: usize) -> Result<(), ApplyError> {
        while self.frames.len() > depth {
            let Some(frame) = self.frames.pop() else { break };
            match &frame.dress {
                Dress::Entry { attributes, born } => {
                    let dressed = self.dresser.open(frame.fd.as_fd(), (libc::S_IFDIR, 0), attributes, *born);
                    dressed.map_err(|cause| cause.at(&self.path(&frame.name)))?;
                }
                Dress::Again(before) => {
                    if before.mode & 0o700 != 0o700 {
                        node::set_mode(frame.fd.as_fd(), before.mode)?;
                    }
                    node::set_times(frame.fd.as_fd(), before.atime, before.mtime)?;
                }
            }
        }
        Ok(())
    }

    /// A directory with its own entry; what is already in it stays.
    pub fn dir(&mut self, name: &OsStr, attributes: &Attributes) -> Result<(), ApplyError> {
        match stat_new(self.here(), name, |dir| open::make_dir(dir, name, DIR_MODE))? {
            None => self.enter_new(name)?,
            Some(found) if found.is_dir() => {
                let fd = open::open_dir(self.here(), name)?;
                self.enter_again(name, fd)?;
            }
            Some(found) => {
                self.clear(name)?;
                self.make_dir(name, found.is_whiteout_device())?;
            }
        }
        let path = self.path(OsStr::new(""));
        self.implicit.remove(&path);
        if let Some(frame) = self.frames.last_mut() {
            let born = match &frame.dress {
                Dress::Entry { born, .. } => *born,
                Dress::Again(_) => None,
            };
            frame.dress = Dress::Entry { attributes: attributes.clone(), born };
        }
        Ok(())
    }

    /// Creates an empty regular file in place of whatever has the name.
    pub fn file(&mut self, name: &OsStr, attributes: &Attributes) -> Result<OwnedFd, ApplyError> {
        let mode = self.dresser.creation_mode(attributes);
        self.make(name, |dir| open::create_file(dir, name, mode))
    }

    /// Counts and dresses a file whose data was written.
    pub fn finish_file(&mut self, file: &OwnedFd, bytes: u64, attributes: &Attributes) -> Result<(), ApplyError> {
        self.usage += Usage::file(bytes);
        let born = self.here_is_plain().then(|| self.dresser.creation_mode(attributes));
        self.dresser.open(file.as_fd(), (libc::S_IFREG, 0), attributes, born)
    }

    /// A symbolic link; where it leads is nobody's concern until it is followed in a container.
    pub fn symlink(&mut self, name: &OsStr, target: &[u8], attributes: &Attributes) -> Result<(), ApplyError> {
        self.make(name, |dir| open::symlink(OsStr::from_bytes(target), dir, name))?;
        self.usage += Usage::NODE;
        self.dress_named(name, true, attributes)
    }

    /// A fifo or device.
    pub fn special(&mut self, name: &OsStr, format: u32, rdev: u64, attributes: &Attributes) -> Result<(), ApplyError> {
        if format == libc::S_IFCHR && rdev == 0 {
            // It would be read as a whiteout, which is what a tar of an overlay's upper directory means by it.
            return self.whiteout(name);
        }
        if self.dresser.overrides() {
            let file = self.file(name, attributes)?;
            self.usage += Usage::NODE;
            return self.dresser.open(file.as_fd(), (format, rdev), attributes, None);
        }
        match self.make(name, |dir| open::make_node(dir, name, format | 0o600, rdev)) {
            Err(ApplyError::Os(error)) if error.is(libc::EPERM) => return Err(ApplyError::Device),
            other => other?,
        }
        self.usage += Usage::NODE;
        self.dress_named(name, false, attributes)
    }

    fn dress_named(&mut self, name: &OsStr, is_link: bool, attributes: &Attributes) -> Result<(), ApplyError> {
        let plain = self.here_is_plain();
        let parent = self.frames.last().map_or(self.root, |frame| frame.fd.as_fd());
        self.dresser.named(parent, name, (is_link, plain), attributes)
    }

    /// Another name of a file of this layer.
    pub fn hard_link(&mut self, name: &OsStr, from: &Components<'_>, shown: &[u8]) -> Result<(), ApplyError> {
        let missing = || ApplyError::LinkTarget { target: Name::new(shown) };
        let Some((from_name, parents)) = from.split_last() else { return Err(missing()) };
        let elsewhere = self.open_other(parents)?.ok_or_else(missing)?;
        let from_dir = elsewhere.as_ref().map_or_else(|| self.dir_on_path(parents.len()), |fd| fd.as_fd());
        match stat::stat_at(from_dir, from_name)? {
            Some(found) if !found.is_dir() && !found.is_whiteout_device() => {
                if stat::stat_at(self.here(), name)?.is_some_and(|own| (own.dev, own.ino) == (found.dev, found.ino)) {
                    return Ok(());
                }
            }
            _ => return Err(missing()),
        }
        self.make(name, |here| {
            let from_dir = elsewhere.as_ref().map(AsFd::as_fd);
            open::link(At { dir: from_dir.unwrap_or(here), name: from_name }, At { dir: here, name })
        })
    }

    /// A descriptor of a directory that is not the current one; `Some(None)` when it is, `None` when there is none.
    fn open_other(&self, parents: &[&OsStr]) -> Result<Option<Option<OwnedFd>>> {
        let common = self.frames.iter().zip(parents).take_while(|(frame, name)| frame.name == **name).count();
        if common == parents.len() && common == self.frames.len() {
            return Ok(Some(None));
        }
        let mut dir = open::duplicate(self.dir_on_path(common))?;
        for name in &parents[common..] {
            dir = match open::open_dir(dir.as_fd(), name) {
                Ok(next) => next,
                Err(error) if [libc::ENOENT, libc::ENOTDIR, libc::ELOOP].into_iter().any(|errno| error.is(errno)) => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
        }
        Ok(Some(Some(dir)))
    }

    /// The directory `depth` steps down the current path.
    fn dir_on_path(&self, depth: usize) -> BorrowedFd<'_> {
        match depth.checked_sub(1) {
            None => self.root,
            Some(at) => self.frames[at].fd.as_fd(),
        }
    }

    /// Hides a name of the layers below. What this layer itself has of that name stays.
    pub fn whiteout(&mut self, name: &OsStr) -> Result<(), ApplyError> {
        match stat::stat_at(self.here(), name)? {
            Some(found) if found.is_dir() => {
                let fd = open::open_dir(self.here(), name)?;
                self.enter_again(name, fd)?;
                self.make_opaque()
            }
            Some(_) => Ok(()),
            None => {
                if !self.dot_whiteouts {
                    match open::make_node(self.here(), name, libc::S_IFCHR, 0) {
                        Ok(()) => {
                            self.usage += Usage::NODE;
                            return Ok(());
                        }
                        Err(error) if is_refusal(error) => self.dot_whiteouts = true,
                        Err(error) => return Err(error.into()),
                    }
                }
                self.dot_file(&dot_name(name))
            }
        }
    }

    /// Makes nothing of the layers below show in the current directory. One mark only: where the privileged one can be set,
    /// the kernel's overlayfs would show the other as an attribute of the image.
    pub fn make_opaque(&mut self) -> Result<(), ApplyError> {
        for name in OPAQUE_XATTRS {
            match node::set_xattr(self.here(), OsStr::new(name), b"y") {
                Err(error) if is_refusal(error) => {}
                other => return Ok(other?),
            }
        }
        self.dot_file(OsStr::new(OPAQUE_FILE))
    }

    fn dot_file(&mut self, name: &OsStr) -> Result<(), ApplyError> {
        match open::create_file(self.here(), name, 0o600) {
            Ok(_) => self.usage += Usage::NODE,
            Err(error) if error.is(libc::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Makes a name; what has it already goes first, for the last entry of a name counts.
    fn make<T>(&mut self, name: &OsStr, make: impl Fn(BorrowedFd<'_>) -> Result<T>) -> Result<T, ApplyError> {
        match make(self.here()) {
            Err(error) if error.is(libc::EEXIST) => {
                self.clear(name)?;
                Ok(make(self.here())?)
            }
            other => Ok(other?),
        }
    }

    fn clear(&mut self, name: &OsStr) -> Result<()> {
        self.usage -= measure(self.here(), name)?;
        let prefix = self.path(name);
        self.implicit
            .retain(|path| !path.starts_with(&prefix) || path.get(prefix.len()).is_some_and(|next| *next != b'/'));
        remove_tree(self.here(), name, 0)
    }

    /// Dresses what is left, the root last.
    pub fn finish(mut self) -> Result<(Usage, Vec<Vec<u8>>, u64), ApplyError> {
        self.leave_to(0)?;
        let attributes = self.root_dress.take().unwrap_or_else(|| {
            self.implicit.insert(Vec::new());
            implicit_attributes()
        });
        self.dresser.open(self.root, (libc::S_IFDIR, 0), &attributes, None)?;
        let mut implicit: Vec<_> = self.implicit.into_iter().collect();
        implicit.sort_unstable();
        Ok((self.usage, implicit, self.dresser.left_out))
    }
}

/// Errnos by which a filesystem says that it has no such device or attribute.
fn is_refusal(error: Error) -> bool {
    [libc::EPERM, libc::EOPNOTSUPP, libc::EINVAL, libc::EACCES].into_iter().any(|errno| error.is(errno))
}

/// Makes a name, or says what has it.
fn stat_new(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    make: impl FnOnce(BorrowedFd<'_>) -> Result<()>,
) -> Result<Option<Stat>> {
    match make(dir) {
        Err(error) if error.is(libc::EEXIST) => stat::stat_at(dir, name),
        other => other.map(|()| None),
    }
}
