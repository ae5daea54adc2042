//! What each operation must answer, and what it does to the model. It owns the rules of POSIX and of the union (what EXDEV is for), with
//! the kernel's order of checks. Invariant: an operation that is refused changes nothing.

use super::Reply;
use super::model::{Body, Expected, Handle, Id, Model, Node, ROOT, Refusal, empty_dir};
use super::op::{Fill, Op, Place, RenameMode};

/// The umask that every target runs under.
const UMASK: u32 = 0o022;

type Found<T> = Result<T, Refusal>;

fn fail<T>(errnos: &'static [i32]) -> Found<T> {
    Err(Refusal::Errno(errnos))
}

impl Model {
    /// What `op` must answer now; carries it out on the model.
    pub fn apply(&mut self, op: &Op) -> Expected {
        match *op {
            Op::Create { path, mode } => self.make(path, Body::File(Vec::new()), mode & !UMASK),
            Op::Mkdir { path, mode } => self.make(path, empty_dir(true), mode & !UMASK),
            Op::Mkfifo { path, mode } => self.make(path, Body::Fifo, mode & !UMASK),
            Op::Symlink { target, path } => self.make(path, Body::Symlink(target.into()), 0o777),
            Op::Write { path, offset, data } => self.open(path, true).map(|id| self.write(id, offset, data)),
            Op::Append { path, data } => self.open(path, true).map(|id| self.write(id, self.size(id), data)),
            Op::Truncate { path, size } => self.truncate(path, size),
            Op::OpenTruncate { path } => self.open(path, true).map(|id| self.resize(id, 0)),
            Op::Read { path } => self.open(path, false).map(|id| self.read(id, 0, usize::MAX)),
            Op::Chmod { path, mode } => self.chmod(path, mode),
            Op::Chown { path, uid, gid } => self.chown(path, uid, gid),
            Op::SetMtime { path, seconds } => self.existing(path).map(|id| self.set_mtime(id, Some(seconds))),
            Op::Link { from, to } => self.link(from, to),
            Op::Rename { from, to, mode } => self.rename(from, to, mode),
            Op::Unlink { path } => self.unlink(path),
            Op::Rmdir { path } => self.rmdir(path),
            Op::SetXattr { path, name, value } => self.xattrs_of(path).map(|node| {
                node.xattrs.insert(name.into(), value.bytes());
                Reply::Done
            }),
            Op::RemoveXattr { path, name } => match self.xattrs_of(path)?.xattrs.remove(name) {
                Some(_) => Ok(Reply::Done),
                None => fail(&[libc::ENODATA]),
            },
            Op::Open { slot, path, writable } => self.open_slot(slot, path, writable),
            Op::ReadHandle { slot, offset, length } => self.handle(slot, false).map(|id| self.read(id, offset, length)),
            Op::WriteHandle { slot, offset, data } => self.handle(slot, true).map(|id| self.write(id, offset, data)),
            Op::TruncateHandle { slot, size } => self.handle(slot, true).map(|id| self.resize(id, size)),
            Op::ChmodHandle { slot, mode } => self.handle(slot, false).map(|id| self.set_mode(id, mode)),
            Op::StatHandle { slot } => self.handle(slot, false).map(|id| {
                let node = &self.nodes[id];
                Reply::Stat { size: self.size(id), mode: node.mode, nlink: node.nlink }
            }),
            Op::Close { slot } => self.handles[slot].take().map(|_| Reply::Done).ok_or(Refusal::Skip),
            Op::DropCaches | Op::Remount => Err(Refusal::Skip),
        }
    }

    fn parent<'path>(&self, path: &'path str) -> Found<(Id, &'path str)> {
        let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut dir = ROOT;
        for step in parents.split('/').filter(|step| !step.is_empty()) {
            let Some(next) = self.entry(dir, step) else { return fail(&[libc::ENOENT]) };
            match self.nodes[next].body {
                Body::Dir { .. } => dir = next,
                // The targets walk with RESOLVE_NO_SYMLINKS.
                Body::Symlink(_) => return fail(&[libc::ELOOP]),
                _ => return fail(&[libc::ENOTDIR]),
            }
        }
        Ok((dir, name))
    }

    fn existing(&self, path: Place) -> Found<Id> {
        let (dir, name) = self.parent(path)?;
        self.entry(dir, name).map_or(fail(&[libc::ENOENT]), Ok)
    }

    fn vacant<'path>(&self, path: &'path str) -> Found<(Id, &'path str)> {
        let (dir, name) = self.parent(path)?;
        if self.entry(dir, name).is_some() { fail(&[libc::EEXIST]) } else { Ok((dir, name)) }
    }

    fn make(&mut self, path: Place, body: Body, mode: u32) -> Expected {
        let (dir, name) = self.vacant(path)?;
        let id = self.add(body, mode);
        self.enter(dir, name, id);
        Ok(Reply::Done)
    }

    fn enter(&mut self, dir: Id, name: &str, id: Id) {
        self.entries_mut(dir).insert(name.into(), id);
        self.nodes[dir].mtime = None;
    }

    fn leave(&mut self, dir: Id, name: &str) {
        if let Some(id) = self.entries_mut(dir).remove(name) {
            self.nodes[id].nlink = self.nodes[id].nlink.map(|count| count.saturating_sub(1));
        }
        self.nodes[dir].mtime = None;
    }

    /// A regular file that this user may open so.
    fn open(&self, path: Place, writable: bool) -> Found<Id> {
        let id = self.existing(path)?;
        let node = &self.nodes[id];
        match node.body {
            Body::File(_) if writable && !self.privileged && node.mode & 0o200 == 0 => Err(Refusal::Skip),
            Body::File(_) => Ok(id),
            Body::Dir { .. } if writable => fail(&[libc::EISDIR]),
            Body::Symlink(_) => fail(&[libc::ELOOP]),
            _ => Err(Refusal::Skip),
        }
    }

    fn open_slot(&mut self, slot: usize, path: Place, writable: bool) -> Expected {
        if self.handles[slot].is_some() {
            return Err(Refusal::Skip);
        }
        let id = self.open(path, writable)?;
        self.handles[slot] = Some(Handle { id, writable });
        Ok(Reply::Done)
    }

    fn handle(&self, slot: usize, writable: bool) -> Found<Id> {
        self.handles[slot].filter(|handle| handle.writable || !writable).map(|handle| handle.id).ok_or(Refusal::Skip)
    }

    fn content(&mut self, id: Id) -> &mut Vec<u8> {
        match &mut self.nodes[id].body {
            Body::File(content) => content,
            other => panic!("not a file in the model: {other:?}"),
        }
    }

    fn size(&self, id: Id) -> u64 {
        match &self.nodes[id].body {
            Body::File(content) => content.len() as u64,
            _ => 0,
        }
    }

    fn read(&mut self, id: Id, offset: u64, length: usize) -> Reply {
        let content = self.content(id);
        let start = content.len().min(offset as usize);
        let end = content.len().min(start.saturating_add(length));
        Reply::Data(content[start..end].to_vec())
    }

    fn write(&mut self, id: Id, offset: u64, data: Fill) -> Reply {
        let (start, end) = (offset as usize, offset as usize + data.length);
        let content = self.content(id);
        content.resize(content.len().max(end), 0);
        content[start..end].fill(data.byte);
        self.set_mtime(id, None)
    }

    fn resize(&mut self, id: Id, size: u64) -> Reply {
        self.content(id).resize(size as usize, 0);
        self.set_mtime(id, None)
    }

    fn truncate(&mut self, path: Place, size: u64) -> Expected {
        // truncate(2) follows a link, and the sequences do not.
        if self.existing(path).is_ok_and(|id| matches!(self.nodes[id].body, Body::Symlink(_))) {
            return Err(Refusal::Skip);
        }
        self.open(path, true).map(|id| self.resize(id, size))
    }

    fn set_mtime(&mut self, id: Id, mtime: Option<i64>) -> Reply {
        self.nodes[id].mtime = mtime;
        Reply::Done
    }

    fn set_mode(&mut self, id: Id, mode: u32) -> Reply {
        self.nodes[id].mode = mode;
        Reply::Done
    }

    fn chmod(&mut self, path: Place, mode: u32) -> Expected {
        let id = self.existing(path)?;
        match self.nodes[id].body {
            Body::Symlink(_) => Err(Refusal::Skip),
            // A directory that its owner cannot enter would end every plain user's sequence.
            Body::Dir { .. } if mode & 0o700 != 0o700 => Err(Refusal::Skip),
            _ => Ok(self.set_mode(id, mode)),
        }
    }

    fn chown(&mut self, path: Place, uid: u32, gid: u32) -> Expected {
        if !self.privileged {
            return Err(Refusal::Skip);
        }
        let id = self.existing(path)?;
        self.nodes[id].owner = (uid, gid);
        Ok(Reply::Done)
    }

    fn xattrs_of(&mut self, path: Place) -> Found<&mut Node> {
        let id = self.existing(path)?;
        let privileged = self.privileged;
        let node = &mut self.nodes[id];
        let allowed = matches!(node.body, Body::File(_) | Body::Dir { .. }) && (privileged || node.mode & 0o200 != 0);
        if allowed { Ok(node) } else { Err(Refusal::Skip) }
    }

    fn link(&mut self, from: Place, to: Place) -> Expected {
        let id = self.existing(from)?;
        let (dir, name) = self.vacant(to)?;
        if self.nodes[id].is_dir() {
            return fail(&[libc::EPERM]);
        }
        self.nodes[id].nlink = self.nodes[id].nlink.map(|count| count + 1);
        self.enter(dir, name, id);
        Ok(Reply::Done)
    }

    fn unlink(&mut self, path: Place) -> Expected {
        let id = self.existing(path)?;
        let (dir, name) = self.parent(path)?;
        if self.nodes[id].is_dir() {
            return fail(&[libc::EISDIR]);
        }
        self.leave(dir, name);
        Ok(Reply::Done)
    }

    fn rmdir(&mut self, path: Place) -> Expected {
        let id = self.existing(path)?;
        let (dir, name) = self.parent(path)?;
        match &self.nodes[id].body {
            Body::Dir { entries, .. } if entries.is_empty() => self.leave(dir, name),
            Body::Dir { .. } => return fail(&[libc::ENOTEMPTY]),
            _ => return fail(&[libc::ENOTDIR]),
        }
        Ok(Reply::Done)
    }

    fn rename(&mut self, from: Place, to: Place, mode: RenameMode) -> Expected {
        let (dir, name) = self.parent(from)?;
        let (new_dir, new_name) = self.parent(to)?;
        let Some(id) = self.entry(dir, name) else { return fail(&[libc::ENOENT]) };
        let target = self.entry(new_dir, new_name);
        let beneath = |above: Place, below: Place| below.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'));
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return fail(&[libc::EEXIST]),
            (RenameMode::Exchange, None) => return fail(&[libc::ENOENT]),
            _ if beneath(from, to) => return fail(&[libc::EINVAL]),
            (RenameMode::Exchange, _) if beneath(to, from) => return fail(&[libc::EINVAL]),
            _ if beneath(to, from) => return fail(&[libc::ENOTEMPTY]),
            (_, Some(target)) if target == id => return Ok(Reply::Done),
            _ => {}
        }
        if mode == RenameMode::Exchange {
            return self.exchange((dir, name, id), (new_dir, new_name, target.unwrap_or(id)));
        }
        if let Some(target) = target {
            self.may_replace(id, target)?;
        }
        self.may_move(id)?;
        if target.is_some() {
            self.leave(new_dir, new_name);
        }
        self.entries_mut(dir).remove(name);
        self.nodes[dir].mtime = None;
        self.enter(new_dir, new_name, id);
        Ok(Reply::Done)
    }

    fn exchange(&mut self, (dir, name, id): (Id, &str, Id), (new_dir, new_name, other): (Id, &str, Id)) -> Expected {
        self.may_move(id)?;
        self.may_move(other)?;
        self.enter(dir, name, other);
        self.enter(new_dir, new_name, id);
        Ok(Reply::Done)
    }

    fn may_replace(&self, id: Id, target: Id) -> Found<()> {
        match (self.nodes[id].is_dir(), &self.nodes[target].body) {
            (true, Body::Dir { entries, .. }) if entries.is_empty() => Ok(()),
            // Which of two reasons is named is left open.
            (true, Body::Dir { .. }) if self.may_move(id).is_err() => fail(&[libc::EXDEV, libc::ENOTEMPTY]),
            (true, Body::Dir { .. }) => fail(&[libc::ENOTEMPTY]),
            (true, _) => fail(&[libc::ENOTDIR]),
            (false, Body::Dir { .. }) => fail(&[libc::EISDIR]),
            (false, _) => Ok(()),
        }
    }

    /// A directory with a part in a lower layer cannot move, as in a kernel without redirect_dir.
    fn may_move(&self, id: Id) -> Found<()> {
        match self.nodes[id].body {
            Body::Dir { movable: false, .. } => fail(&[libc::EXDEV]),
            _ => Ok(()),
        }
    }
}
