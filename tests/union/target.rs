//! Operations on a union in process. It owns what the kernel does in front of a filesystem: walking paths, holding entries, refusing what
//! can be refused from types alone. Invariant: every lookup it was given is forgotten again, at the latest by `drop_caches`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use lamina_fs::error::Error;
use lamina_fs::union::{
    Attributes, Caller, Changes, Config, InodeNumber, RenameFlags, TimeChange, Timestamp, Union, UpperConfig,
    build_index,
};
use support::oracle::op::RenameMode;
use support::oracle::{Errno, Op, Reply, SLOTS, Target};
use support::tree::Tree;
use support::{Layers, machine};

pub(super) const ROOT: InodeNumber = InodeNumber(1);

/// A union on `Layers`, and the part of the kernel that its users rely on.
pub struct InProcess<'layers> {
    layers: &'layers Layers,
    index: Option<PathBuf>,
    union: Option<Union>,
    lookups: RefCell<BTreeMap<InodeNumber, u64>>,
    handles: [Option<InodeNumber>; SLOTS],
}

type Result<T, E = Errno> = std::result::Result<T, E>;

/// The configuration of a plain mount of `layers`.
pub fn plain(layers: &Layers) -> Config {
    let upper = UpperConfig { upper: layers.upper.clone(), work: layers.work.clone() };
    Config { upper: Some(upper), descriptors_max: 64, ..Config::new(layers.lowers.clone()) }
}

fn open(layers: &Layers, index: Option<&Path>) -> Union {
    Union::new(Config { index: index.map(Path::to_owned), ..plain(layers) })
        .unwrap_or_else(|error| panic!("Union::new: {error}"))
}

fn caller() -> Caller {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Caller { uid, gid, pid: std::process::id(), umask: 0o022 }
}

/// The errno that the driver would answer.
pub(super) fn errno(error: Error) -> Errno {
    match error {
        Error::NoSuchInode => libc::ESTALE,
        Error::NotFound => libc::ENOENT,
        Error::Exists => libc::EEXIST,
        Error::NotEmpty => libc::ENOTEMPTY,
        Error::NotDirectory => libc::ENOTDIR,
        Error::IsDirectory => libc::EISDIR,
        Error::ReadOnly => libc::EROFS,
        Error::CrossLayer => libc::EXDEV,
        Error::NameTooLong => libc::ENAMETOOLONG,
        Error::NotSupported => libc::EOPNOTSUPP,
        Error::NotPermitted => libc::EPERM,
        Error::NoAttribute => libc::ENODATA,
        Error::TooLarge => libc::EFBIG,
        Error::InvalidName | Error::InvalidArgument | Error::NotRegular => libc::EINVAL,
        Error::Os { errno, .. } => errno,
        _ => libc::EIO,
    }
}

impl<'layers> InProcess<'layers> {
    /// Opens the union of `layers`.
    pub fn new(layers: &'layers Layers) -> InProcess<'layers> {
        InProcess::on(layers, None)
    }

    /// A union that answers for its lower layers from an index of them.
    pub fn with_index(layers: &'layers Layers) -> InProcess<'layers> {
        let file = layers.merged.with_file_name("index");
        build_index(&plain(layers), &file, |_| {}).unwrap_or_else(|error| panic!("build_index: {error}"));
        InProcess::on(layers, Some(file))
    }

    fn on(layers: &'layers Layers, index: Option<PathBuf>) -> InProcess<'layers> {
        let union = Some(open(layers, index.as_deref()));
        InProcess { layers, index, union, lookups: RefCell::default(), handles: [None; SLOTS] }
    }

    pub(super) fn union(&self) -> &Union {
        self.union.as_ref().expect("a union between remounts")
    }

    fn hold(&self, attributes: &Attributes) {
        *self.lookups.borrow_mut().entry(attributes.number).or_default() += 1;
    }

    pub(super) fn find(&self, dir: InodeNumber, name: &str) -> Result<Option<Attributes>> {
        let found = self.union().lookup(dir, OsStr::new(name)).map_err(errno)?;
        found.iter().for_each(|attributes| self.hold(attributes));
        Ok(found)
    }

    fn parent<'path>(&self, path: &'path str) -> Result<(InodeNumber, &'path str)> {
        let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut dir = ROOT;
        for step in parents.split('/').filter(|step| !step.is_empty()) {
            let next = self.find(dir, step)?.ok_or(libc::ENOENT)?;
            match next.mode & libc::S_IFMT {
                libc::S_IFDIR => dir = next.number,
                libc::S_IFLNK => return Err(libc::ELOOP),
                _ => return Err(libc::ENOTDIR),
            }
        }
        Ok((dir, name))
    }

    fn existing(&self, path: &str) -> Result<Attributes> {
        let (dir, name) = self.parent(path)?;
        self.find(dir, name)?.ok_or(libc::ENOENT)
    }

    fn vacant<'path>(&self, path: &'path str) -> Result<(InodeNumber, &'path str)> {
        let (dir, name) = self.parent(path)?;
        if self.find(dir, name)?.is_some() { Err(libc::EEXIST) } else { Ok((dir, name)) }
    }

    /// Opens a file for `work`, and closes it.
    fn opened<T>(
        &self,
        path: &str,
        writable: bool,
        truncate: bool,
        work: impl FnOnce(&Union, Attributes) -> Result<T, Error>,
    ) -> Result<T> {
        let found = self.existing(path)?;
        match found.mode & libc::S_IFMT {
            libc::S_IFDIR if writable => return Err(libc::EISDIR),
            libc::S_IFLNK => return Err(libc::ELOOP),
            _ => {}
        }
        self.union().open(&caller(), found.number, writable, truncate).map_err(errno)?;
        let number = found.number;
        let done = work(self.union(), found);
        self.union().release(number);
        done.map_err(errno)
    }

    fn write(union: &Union, inode: InodeNumber, offset: u64, data: &[u8]) -> Result<(), Error> {
        assert_eq!(union.write(inode, offset, data, false)?, data.len(), "a short write");
        Ok(())
    }

    fn handle(&self, slot: usize) -> InodeNumber {
        self.handles[slot].expect("the model skips empty slots")
    }

    fn change(&self, inode: InodeNumber, changes: &Changes) -> Result<()> {
        self.union().set_attributes(&caller(), inode, changes).map(drop).map_err(errno)
    }

    fn make(
        &self,
        path: &str,
        make: impl FnOnce(&Union, InodeNumber, &OsStr) -> Result<Attributes, Error>,
    ) -> Result<InodeNumber> {
        let (dir, name) = self.vacant(path)?;
        let made = make(self.union(), dir, OsStr::new(name)).map_err(errno)?;
        self.hold(&made);
        Ok(made.number)
    }

    fn on_data(&mut self, op: &Op) -> Result<Reply> {
        match *op {
            Op::Create { path, mode } => {
                let number =
                    self.make(path, |union, dir, name| union.create(&caller(), dir, name, libc::S_IFREG | mode))?;
                self.union().release(number);
            }
            Op::Write { path, offset, data } => {
                self.opened(path, true, false, |union, found| Self::write(union, found.number, offset, &data.bytes()))?;
            }
            Op::Append { path, data } => self.opened(path, true, false, |union, found| {
                let end = union.attributes(found.number)?.size;
                Self::write(union, found.number, end, &data.bytes())
            })?,
            Op::OpenTruncate { path } => self.opened(path, true, true, |_, _| Ok(()))?,
            Op::Read { path } => {
                return self.opened(path, false, false, |union, found| read(union, found.number, 0, usize::MAX));
            }
            Op::Open { slot, path, writable } => {
                let found = self.opened(path, false, false, |_, found| Ok(found))?;
                self.union().open(&caller(), found.number, writable, false).map_err(errno)?;
                self.handles[slot] = Some(found.number);
            }
            Op::ReadHandle { slot, offset, length } => {
                return read(self.union(), self.handle(slot), offset, length).map_err(errno);
            }
            Op::WriteHandle { slot, offset, data } => {
                Self::write(self.union(), self.handle(slot), offset, &data.bytes()).map_err(errno)?
            }
            Op::TruncateHandle { slot, size } => {
                self.change(self.handle(slot), &Changes { size: Some(size), ..Changes::default() })?
            }
            Op::ChmodHandle { slot, mode } => {
                self.change(self.handle(slot), &Changes { mode: Some(mode), ..Changes::default() })?
            }
            Op::StatHandle { slot } => {
                let stat = self.union().attributes(self.handle(slot)).map_err(errno)?;
                return Ok(Reply::Stat { size: stat.size, mode: stat.mode & 0o7777, nlink: Some(stat.nlink.into()) });
            }
            Op::Close { slot } => {
                let inode = self.handle(slot);
                self.handles[slot] = None;
                self.union().release(inode);
            }
            _ => return self.on_names(op),
        }
        Ok(Reply::Done)
    }

    fn on_names(&self, op: &Op) -> Result<Reply> {
        let as_name = OsStr::new;
        match *op {
            Op::Truncate { path, size } => {
                let found = self.existing(path)?;
                match found.mode & libc::S_IFMT {
                    libc::S_IFDIR => return Err(libc::EISDIR),
                    libc::S_IFLNK => return Err(libc::ELOOP),
                    _ => self.change(found.number, &Changes { size: Some(size), ..Changes::default() })?,
                }
            }
            Op::Chmod { path, mode } => {
                self.change(self.existing(path)?.number, &Changes { mode: Some(mode), ..Changes::default() })?
            }
            Op::Chown { path, uid, gid } => {
                self.change(
                    self.existing(path)?.number,
                    &Changes { uid: Some(uid), gid: Some(gid), ..Changes::default() },
                )?;
            }
            Op::SetMtime { path, seconds } => {
                let mtime = TimeChange::At(Timestamp { seconds, nanoseconds: 0 });
                self.change(self.existing(path)?.number, &Changes { mtime, ..Changes::default() })?;
            }
            Op::Link { from, to } => {
                let found = self.existing(from)?;
                let (dir, name) = self.vacant(to)?;
                if found.mode & libc::S_IFMT == libc::S_IFDIR {
                    return Err(libc::EPERM);
                }
                self.hold(&self.union().link(found.number, dir, as_name(name)).map_err(errno)?);
            }
            Op::Symlink { target, path } => {
                self.make(path, |union, dir, name| union.symlink(&caller(), dir, name, as_name(target))).map(|_| ())?;
            }
            Op::Mkdir { path, mode } => {
                self.make(path, |union, dir, name| union.make_dir(&caller(), dir, name, mode)).map(|_| ())?;
            }
            Op::Mkfifo { path, mode } => {
                self.make(path, |union, dir, name| union.make_node(&caller(), dir, name, libc::S_IFIFO | mode, 0))
                    .map(|_| ())?;
            }
            Op::Rename { from, to, mode } => self.rename(from, to, mode)?,
            Op::Unlink { path } => match self.existing(path)?.mode & libc::S_IFMT {
                libc::S_IFDIR => return Err(libc::EISDIR),
                _ => self.with_parent(path, |union, dir, name| union.remove_file(dir, name))?,
            },
            Op::Rmdir { path } => match self.existing(path)?.mode & libc::S_IFMT {
                libc::S_IFDIR => self.with_parent(path, |union, dir, name| union.remove_dir(dir, name))?,
                _ => return Err(libc::ENOTDIR),
            },
            Op::SetXattr { path, name, value } => {
                let found = self.existing(path)?;
                self.union().set_xattr(&caller(), found.number, as_name(name), &value.bytes(), 0).map_err(errno)?;
            }
            Op::RemoveXattr { path, name } => {
                self.union().remove_xattr(self.existing(path)?.number, as_name(name)).map_err(errno)?
            }
            _ => unreachable!("the rest is handled by on_data"),
        }
        Ok(Reply::Done)
    }

    fn with_parent(
        &self,
        path: &str,
        work: impl FnOnce(&Union, InodeNumber, &OsStr) -> Result<(), Error>,
    ) -> Result<()> {
        let (dir, name) = self.parent(path)?;
        work(self.union(), dir, OsStr::new(name)).map_err(errno)
    }

    /// The checks of rename in fs/namei.c come first; the union sees only what they let through.
    fn rename(&self, from: &str, to: &str, mode: RenameMode) -> Result<()> {
        let (dir, name) = self.parent(from)?;
        let (new_dir, new_name) = self.parent(to)?;
        let found = self.find(dir, name)?.ok_or(libc::ENOENT)?;
        let target = self.find(new_dir, new_name)?;
        let beneath = |above: &str, below: &str| below.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'));
        let is_dir = |of: &Attributes| of.mode & libc::S_IFMT == libc::S_IFDIR;
        match (mode, &target) {
            (RenameMode::NoReplace, Some(_)) => return Err(libc::EEXIST),
            (RenameMode::Exchange, None) => return Err(libc::ENOENT),
            _ if beneath(from, to) => return Err(libc::EINVAL),
            (RenameMode::Exchange, _) if beneath(to, from) => return Err(libc::EINVAL),
            _ if beneath(to, from) => return Err(libc::ENOTEMPTY),
            (_, Some(target)) if target.number == found.number => return Ok(()),
            (RenameMode::Plain, Some(target)) if is_dir(&found) && !is_dir(target) => return Err(libc::ENOTDIR),
            (RenameMode::Plain, Some(target)) if !is_dir(&found) && is_dir(target) => return Err(libc::EISDIR),
            _ => {}
        }
        let flags = RenameFlags { no_replace: mode == RenameMode::NoReplace, exchange: mode == RenameMode::Exchange };
        self.union().rename(dir, OsStr::new(name), new_dir, OsStr::new(new_name), flags).map_err(errno)
    }

    fn forget_all(&mut self) {
        let open: Vec<_> = self.handles.iter().flatten().copied().collect();
        let held = std::mem::take(&mut *self.lookups.borrow_mut());
        for (number, count) in held {
            // An open file keeps its inode in the kernel, and so one lookup.
            let kept = u64::from(open.contains(&number));
            if count > kept {
                self.union().forget(number, count - kept);
            }
            if kept > 0 {
                self.lookups.borrow_mut().insert(number, kept);
            }
        }
    }
}

pub(super) fn read(union: &Union, inode: InodeNumber, offset: u64, length: usize) -> Result<Reply, Error> {
    let mut data = vec![0; length.min(1 << 20)];
    let mut filled = 0;
    while filled < data.len() {
        match union.read(inode, offset + filled as u64, &mut data[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    data.truncate(filled);
    Ok(Reply::Data(data))
}

impl Target for InProcess<'_> {
    fn apply(&mut self, op: &Op) -> Result<Reply, Errno> {
        self.on_data(op)
    }

    fn tree(&mut self) -> Tree {
        self.whole_tree()
    }

    fn remount(&mut self) {
        for inode in self.handles.iter_mut().filter_map(Option::take) {
            self.union.as_ref().expect("a union").release(inode);
        }
        self.lookups.borrow_mut().clear();
        self.union().finish();
        // The old one first: it holds the lock of the work directory.
        drop(self.union.take());
        self.union = Some(open(self.layers, self.index.as_deref()));
    }

    fn drop_caches(&mut self) {
        self.forget_all();
    }
}

/// Whether sequences may chown and use `trusted.` attributes.
pub fn privileged() -> bool {
    machine::is_root()
}
