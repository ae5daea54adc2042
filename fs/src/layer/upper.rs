//! The upper layer: the only type with verbs that change a layer.
//!
//! Owns how whiteouts, opaque marks, owners and modes are written. Must not know other layers. Invariant: nothing shows up
//! in the upper tree except by one atomic call.

use super::lower::{DirMarks, Layer, LayerId};
use super::override_stat::{Overridden, OverrideStat};
use super::setup::SetupError;
use super::whiteout::{OPAQUE_FILE, dot_name};
use super::work::{Temporary, WorkDir, remove_tree};
use crate::error::{Error, Result};
use crate::sys::rename::{self, At};
use crate::sys::stat::Stat;
use crate::sys::{open, stat, xattr};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where the upper layer lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpperConfig {
    /// Its root.
    pub upper: PathBuf,
    /// The work directory, on the same filesystem.
    pub work: PathBuf,
}

/// How whiteouts are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhiteoutStyle {
    /// Character device 0:0.
    Device,
    /// A file `.wh.NAME`.
    Dot,
}

/// What is to be made.
#[derive(Debug, Clone, Copy)]
pub enum Node<'a> {
    /// An empty regular file.
    File,
    /// An empty directory.
    Dir,
    /// A symbolic link.
    Symlink(&'a OsStr),
    /// A fifo, socket or device: type bits and device number.
    Special(u32, u64),
}

/// The whiteout in `WORKDIR/lamina` that new ones are linked to.
const SHARED_WHITEOUT: &str = "whiteout";

/// The upper layer.
#[derive(Debug)]
pub struct Upper {
    layer: Layer,
    work: WorkDir,
    /// Devices cannot be made here: whiteouts are `.wh.` files.
    dot_whiteouts: AtomicBool,
    /// The attributes that make a directory opaque and that can be set here; none: a `.wh..wh..opq` file does.
    opaque_xattrs: Vec<&'static str>,
    /// Where our own marks go: `trusted.overlay.` or `user.overlay.`.
    mark_prefix: Option<&'static str>,
    override_stat: OverrideStat,
}

/// Errnos by which a filesystem says that it has no such device, attribute or rename.
const REFUSALS: [i32; 6] = [libc::EPERM, libc::EOPNOTSUPP, libc::EINVAL, libc::ENOSYS, libc::EACCES, libc::ENOENT];

fn is_refusal(error: Error) -> bool {
    error.errno().is_some_and(|errno| REFUSALS.contains(&errno))
}

/// Moves a directory out of the tree: without privilege that needs leave to write to it, which its mode may deny.
fn with_leave(dir: At<'_>, moving: impl Fn() -> Result<()>) -> Result<()> {
    match moving() {
        Err(error) if error.is(libc::EACCES) => {
            stat::set_mode(open::open_path(dir.dir, dir.name)?.as_fd(), 0o700)?;
            moving()
        }
        other => other,
    }
}

impl Upper {
    /// Takes an opened upper root and a prepared work directory into use, and finds out what can be written there.
    pub fn new(root: OwnedFd, work: WorkDir, style: WhiteoutStyle, override_stat: OverrideStat) -> Result<Self> {
        let layer = Layer::new(LayerId::UPPER, root, override_stat != OverrideStat::Off)?;
        let mut upper = Upper {
            layer,
            work,
            dot_whiteouts: AtomicBool::new(style == WhiteoutStyle::Dot),
            opaque_xattrs: Vec::new(),
            mark_prefix: None,
            override_stat,
        };
        upper.probe()?;
        upper.find_shared()?;
        Ok(upper)
    }

    fn probe(&mut self) -> Result<()> {
        let trial = self.work.temporary();
        if self.style() == WhiteoutStyle::Device {
            match open::make_node(trial.dir(), trial.name(), libc::S_IFCHR, 0) {
                Ok(()) => open::unlink(trial.dir(), trial.name())?,
                Err(error) if is_refusal(error) => self.dot_whiteouts.store(true, Ordering::Relaxed),
                Err(error) => return Err(error),
            }
        }
        open::make_dir(trial.dir(), trial.name(), 0o700)?;
        let fd = open::open_dir(trial.dir(), trial.name())?;
        let mut opaque_xattrs = Vec::new();
        let mut mark_prefix = None;
        for (prefix, name) in [("trusted.overlay.", "trusted.overlay.opaque"), ("user.overlay.", "user.overlay.opaque")]
        {
            match xattr::set(fd.as_fd(), OsStr::new(name), b"y", 0) {
                Ok(()) => {
                    opaque_xattrs.push(name);
                    mark_prefix.get_or_insert(prefix);
                }
                Err(error) if is_refusal(error) => {}
                Err(error) => return Err(error),
            }
        }
        drop(trial);
        self.opaque_xattrs = opaque_xattrs;
        self.mark_prefix = mark_prefix;
        Ok(())
    }

    /// What can be read of it.
    pub fn layer(&self) -> &Layer {
        &self.layer
    }

    /// Its work directory.
    pub fn work(&self) -> &WorkDir {
        &self.work
    }

    /// How whiteouts are written.
    pub fn style(&self) -> WhiteoutStyle {
        match self.dot_whiteouts.load(Ordering::Relaxed) {
            true => WhiteoutStyle::Dot,
            false => WhiteoutStyle::Device,
        }
    }

    /// Which attribute carries owner and mode.
    pub fn override_stat(&self) -> OverrideStat {
        self.override_stat
    }

    /// Makes a node under a name that must not exist. Regular files come with a descriptor for data.
    pub fn make(&self, dir: BorrowedFd<'_>, name: &OsStr, node: Node<'_>, permissions: u32) -> Result<Option<OwnedFd>> {
        match node {
            Node::File => open::create_file(dir, name, permissions).map(Some),
            Node::Dir => open::make_dir(dir, name, permissions).map(|()| None),
            Node::Symlink(target) => open::symlink(target, dir, name).map(|()| None),
            Node::Special(format, rdev) => open::make_node(dir, name, format | permissions, rdev).map(|()| None),
        }
    }

    /// Makes a node in the work directory, to be published later, with a descriptor: for data where it is a regular
    /// file, for listing where it is a directory, else as a reference. `permissions`: those that it will keep, where they do not
    /// forbid what is still to be done to it.
    pub fn build(&self, node: Node<'_>, permissions: Option<u32>) -> Result<(Temporary<'_>, OwnedFd)> {
        let temporary = self.work.temporary();
        let overridden = self.override_stat != OverrideStat::Off;
        let (node, private) = match node {
            Node::Special(..) if overridden => (Node::File, 0o755),
            Node::File | Node::Dir if overridden => (node, 0o755),
            Node::Dir => (node, 0o700),
            _ => (node, 0o600),
        };
        let permissions = permissions.filter(|_| !overridden).unwrap_or(private);
        let fd = match self.make(temporary.dir(), temporary.name(), node, permissions)? {
            Some(fd) => fd,
            None if matches!(node, Node::Dir) => open::open_dir(temporary.dir(), temporary.name())?,
            None => open::open_path(temporary.dir(), temporary.name())?,
        };
        Ok((temporary, fd))
    }

    /// Links the file behind a descriptor under a name that must not exist.
    pub fn link(&self, file: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        open::link_fd(file, dir, name)
    }

    /// Publishes a built node under a name that must not exist.
    pub fn publish(&self, built: Temporary<'_>, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        rename::no_replace(built.at(), At { dir, name })?;
        built.published();
        Ok(())
    }

    /// Publishes a built node over the whiteout that stands under the name.
    pub fn publish_over_whiteout(
        &self,
        built: Temporary<'_>,
        is_dir: bool,
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<()> {
        let to = At { dir, name };
        let device = stat::stat_at(dir, name)?;
        match (device, is_dir) {
            (Some(before), false) => {
                rename::replace(built.at(), to)?;
                self.work.marks().name_taken(&before);
            }
            (Some(before), true) => {
                // A directory cannot replace a device: swap, and the whiteout goes with the temporary name.
                rename::exchange(built.at(), to)?;
                self.work.marks().name_taken(&before);
                drop(built);
                return Ok(());
            }
            (None, _) => rename::no_replace(built.at(), to)?,
        }
        built.published();
        if let Err(error) = self.remove_dot_whiteout(dir, name) {
            // It hides only what the new file hides as well.
            tracing::warn!(%error, ?name, "a whiteout file stays beside the file that replaced it");
        }
        Ok(())
    }

    /// Removes the `.wh.` file of a name that exists, so that it hides nothing any more.
    pub fn remove_dot_whiteout(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        let dot = dot_name(name);
        match open::exists(dir, &dot)? {
            true => open::unlink(dir, &dot).inspect(|()| self.work.marks().taken()),
            false => Ok(()),
        }
    }

    /// Hides a name of the layers below that the upper layer does not have.
    pub fn whiteout(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        if self.style() == WhiteoutStyle::Device {
            match self.device_whiteout(dir, name) {
                Err(error) if is_refusal(error) => {}
                other => return other,
            }
        }
        self.dot_whiteout(dir, name)
    }

    /// Makes a whiteout that shares its inode with all others, as those of the kernel's overlayfs do: making an inode for
    /// each costs several times a link.
    fn device_whiteout(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        let shared = At { dir: self.work.own_dir()?, name: OsStr::new(SHARED_WHITEOUT) };
        match open::link(shared, At { dir, name }) {
            // Not there yet, or linked as often as the filesystem allows: this one becomes the next to be shared.
            Err(error) if error.is(libc::ENOENT) || error.is(libc::EMLINK) => {}
            other => return other,
        }
        open::make_node(dir, name, libc::S_IFCHR, 0)?;
        // Until it is shared it is one of its own, and so is the one that was shared before, of which the tree is full.
        self.work.marks().made();
        let renewed = self.unshare(shared).and_then(|()| open::link(At { dir, name }, shared));
        match renewed.and_then(|()| self.find_shared()) {
            Ok(()) => self.work.marks().taken(),
            Err(error) => tracing::debug!(%error, "whiteouts share no inode"),
        }
        Ok(())
    }

    /// Lets the tree alone have the whiteout that was shared so far.
    fn unshare(&self, shared: At<'_>) -> Result<()> {
        let before = self.shared_whiteout()?;
        remove_tree(shared.dir, shared.name, 0)?;
        self.work.marks().share(0);
        if before.is_some_and(|before| before.nlink > 1) {
            self.work.marks().made();
        }
        Ok(())
    }

    /// The whiteout that new ones are linked to, where there is one; all of its links but one are in the tree.
    pub fn shared_whiteout(&self) -> Result<Option<Stat>> {
        match self.work.existing_own_dir()? {
            Some(own) => stat::stat_at(own, OsStr::new(SHARED_WHITEOUT)),
            None => Ok(None),
        }
    }

    fn find_shared(&self) -> Result<()> {
        self.work.marks().share(self.shared_whiteout()?.map(|found| found.ino).unwrap_or_default());
        Ok(())
    }

    fn dot_whiteout(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        self.make_mark(dir, &dot_name(name))
    }

    fn make_mark(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        match open::create_file(dir, name, 0o600) {
            Err(error) if error.is(libc::EEXIST) => Ok(()),
            other => other.map(|_| self.work.marks().made()),
        }
    }

    /// Replaces a name of the upper layer, `is_dir` or not, and everything below it, by a whiteout.
    pub fn replace_by_whiteout(&self, dir: BorrowedFd<'_>, name: &OsStr, is_dir: bool) -> Result<()> {
        let target = At { dir, name };
        if self.style() == WhiteoutStyle::Device {
            let built = self.work.temporary();
            match self.device_whiteout(built.dir(), built.name()) {
                Ok(()) if is_dir => return with_leave(target, || rename::exchange(built.at(), target)),
                Ok(()) => {
                    rename::replace(built.at(), target)?;
                    built.published();
                    return Ok(());
                }
                Err(error) if is_refusal(error) => {}
                Err(error) => return Err(error),
            }
        }
        self.hide_then(target, || self.remove(dir, name))
    }

    /// Hides a name of the upper layer by a `.wh.` file, which leaves the name itself visible, and then takes the name away
    /// in one step; where that fails, the file goes again.
    fn hide_then(&self, target: At<'_>, take_away: impl FnOnce() -> Result<()>) -> Result<()> {
        let before = stat::stat_fd(target.dir)?;
        let hidden = open::exists(target.dir, &dot_name(target.name))?;
        self.dot_whiteout(target.dir, target.name)?;
        let taken = take_away();
        if taken.is_err() && !hidden {
            self.remove_dot_whiteout(target.dir, target.name)?;
            let keep = |time| stat::TimeChange::At(time);
            stat::set_times(target.dir, keep(before.atime), keep(before.mtime))?;
        }
        taken
    }

    /// Removes a name of the upper layer in one step; a directory may still hold marks.
    pub fn remove(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        match open::unlink(dir, name) {
            Err(error) if error.is(libc::EISDIR) => {}
            other => return other,
        }
        match open::remove_dir(dir, name) {
            Err(error) if error.is(libc::ENOTEMPTY) || error.is(libc::EEXIST) => {}
            other => return other,
        }
        let away = self.work.temporary();
        with_leave(At { dir, name }, || rename::no_replace(At { dir, name }, away.at()))
    }

    /// Renames inside the upper layer, replacing what is there.
    pub fn rename(&self, from: At<'_>, to: At<'_>) -> Result<()> {
        rename::replace(from, to)
    }

    /// Swaps two names of the upper layer.
    pub fn exchange(&self, from: At<'_>, to: At<'_>) -> Result<()> {
        rename::exchange(from, to)
    }

    /// Renames inside the upper layer, replacing what is there, and hides the old name.
    pub fn rename_leaving_whiteout(&self, from: At<'_>, to: At<'_>) -> Result<()> {
        if self.style() == WhiteoutStyle::Device {
            match rename::leave_whiteout(from, to) {
                Err(error) if is_refusal(error) && !error.is(libc::ENOENT) => {}
                other => return other.inspect(|()| self.work.marks().made()),
            }
        }
        self.hide_then(from, || rename::replace(from, to))
    }

    /// Makes nothing of the directories below show in this one.
    pub fn make_opaque(&self, dir: BorrowedFd<'_>) -> Result<()> {
        if self.opaque_xattrs.is_empty() {
            return self.make_mark(dir, OsStr::new(OPAQUE_FILE));
        }
        self.opaque_xattrs.iter().try_for_each(|name| xattr::set(dir, OsStr::new(name), b"y", 0))
    }

    /// The marks of one of its directories.
    pub fn dir_marks(&self, dir: BorrowedFd<'_>) -> Result<DirMarks> {
        self.layer.dir_marks(dir)
    }

    /// Gives a file owner and mode; `current` is what it shows now. `None` keeps.
    pub fn set_owner_and_mode(
        &self,
        fd: BorrowedFd<'_>,
        current: &Stat,
        owner: (Option<u32>, Option<u32>),
        mode: Option<u32>,
    ) -> Result<()> {
        if let Some(name) = self.override_stat.xattr() {
            let mut shown = *current;
            shown.uid = owner.0.unwrap_or(shown.uid);
            shown.gid = owner.1.unwrap_or(shown.gid);
            shown.mode = shown.format() | (mode.unwrap_or(shown.mode) & 0o7777);
            // A symbolic link takes no user attribute, and has neither mode nor privileges to keep.
            if self.override_stat == OverrideStat::User && shown.format() == libc::S_IFLNK {
                return Ok(());
            }
            return xattr::set(fd, name, Overridden::of(&shown).format().as_bytes(), 0);
        }
        let owner = (owner.0.filter(|uid| *uid != current.uid), owner.1.filter(|gid| *gid != current.gid));
        if owner != (None, None) {
            stat::set_owner(fd, owner.0, owner.1)?;
        }
        match mode {
            Some(mode) if current.format() != libc::S_IFLNK => stat::set_mode(fd, mode),
            _ => Ok(()),
        }
    }

    /// Writes one of our own marks; `false` where this file or filesystem takes none.
    pub fn set_mark(&self, fd: BorrowedFd<'_>, mark: &str, value: &[u8]) -> Result<bool> {
        let Some(prefix) = self.mark_prefix else { return Ok(false) };
        match xattr::set(fd, OsStr::new(&format!("{prefix}{mark}")), value, 0) {
            Ok(()) => Ok(true),
            Err(error) if is_refusal(error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads one of our own marks; without privilege none is to be had of a file whose mode denies reading.
    pub fn mark(&self, fd: BorrowedFd<'_>, mark: &str) -> Result<Option<Vec<u8>>> {
        let Some(prefix) = self.mark_prefix else { return Ok(None) };
        match xattr::value(fd, OsStr::new(&format!("{prefix}{mark}"))) {
            Err(error) if error.is(libc::EACCES) => Ok(None),
            other => other,
        }
    }

    /// Removes what is left of a side record.
    pub fn remove_record(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        remove_tree(dir, name, 0)
    }

    /// Opens and checks the upper root.
    pub fn open_root(path: &std::path::Path) -> Result<OwnedFd, SetupError> {
        let fail = |error| SetupError::Upper { path: path.to_owned(), error };
        let root = open::open_root(path).map_err(fail)?;
        rustix::fs::accessat(&root, ".", rustix::fs::Access::WRITE_OK, rustix::fs::AtFlags::EACCESS)
            .map_err(|errno| fail(crate::sys::os("access")(errno)))?;
        Ok(root)
    }
}
