//! The servers of mounted snapshots: one `lamina-fs` process each, which lives longer than we do.
//!
//! Owns `mounts/ID`: the mountpoint, and who serves it. Must not know who asks. Invariants: what runs is written down before
//! its mount can be used; after a restart the same server is found, never a second one started.

use super::process::{Identity, Process};
use super::{Mount, Show, bind, pieces, show, table};
use crate::error::{Error, Result};
use crate::snapshot::{Kind, Snapshot, Usage};
use crate::store::{Dirs, Store};
use lamina_fs::fuse::background;
use lamina_fs::fuse::usage::Answer;
use nix::mount::{MntFlags, MsFlags, umount2};
use parking_lot::Mutex;
use rustix::process::Signal;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;

/// As the mount table names what Lamina mounts.
const FUSE_TYPE: &str = "fuse.lamina-fs";

/// How long a server may take to end after its unmount, in milliseconds, before it is killed: whoever still has the mount open is
/// about to lose the snapshot anyway.
const END_TIMEOUT_MS: u16 = 5_000;

/// A watching thread only waits.
const WATCHER_STACK_BYTES: usize = 64 << 10;

/// Starts, finds and stops servers.
#[derive(Clone, Debug)]
pub struct Servers {
    store: Store,
    program: PathBuf,
    locks: Arc<Mutex<HashMap<u64, Arc<Mutex<()>>>>>,
}

impl Servers {
    /// With this `lamina-fs`.
    pub fn new(store: Store, program: PathBuf) -> Servers {
        Servers { store, program, locks: Arc::default() }
    }

    /// What a caller mounts to get at a snapshot. Starts its server if it has none.
    ///
    /// # Errors
    /// [`Error::Server`] with the server's own sentence; [`Error::Io`].
    pub fn mounts(&self, snapshot: &Snapshot) -> Result<Vec<Mount>> {
        let dirs = self.store.dirs();
        let layer = dirs.layer(snapshot.content);
        let mount = match show(snapshot) {
            Show::Bare => bind(&layer, false),
            Show::Pieces => pieces(&layer, &dirs.work(snapshot.content), &self.store.lowers(snapshot)?),
            Show::Served => bind(&self.serve(snapshot)?, snapshot.kind != Kind::Active),
        };
        Ok(vec![mount])
    }

    /// What the server of an active snapshot says that its layer takes; `None` where none runs, or the layer is written without one.
    /// Which of the two it is never changes while a snapshot is active, so nobody writes behind the server's back.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn usage(&self, snapshot: &Snapshot) -> Result<Option<Answer>> {
        let place = Place::of(self.store.dirs(), snapshot.id);
        // The mount table is not read: containerd asks for each snapshot in turn, and what is no mount says so itself.
        match show(snapshot) == Show::Served && place.server()?.is_some() {
            true => Ok(place.usage()),
            false => Ok(None),
        }
    }

    /// The mountpoint of a snapshot's server, which runs when this returns.
    fn serve(&self, snapshot: &Snapshot) -> Result<PathBuf> {
        let place = Place::of(self.store.dirs(), snapshot.id);
        let lock = self.lock(snapshot.id);
        let _held = lock.lock();
        // It may have been committed or removed since the caller looked: what is committed must not be written to any more.
        match self.store.by_id(snapshot.id)? {
            Some(now) if now.kind == snapshot.kind && now.key == snapshot.key => {}
            _ => return Err(Error::NoSnapshot { key: snapshot.key.clone() }),
        }
        if place.is_served()? {
            return Ok(place.mountpoint);
        }
        // What a killed server, or a kill between its start and its mount, has left.
        place.clear()?;
        place.make()?;
        let index = self.store.parent(snapshot)?.map(|parent| self.store.dirs().index(parent.content));
        let index = index.filter(|index| index.exists());
        let started = match self.start(snapshot, &place, index.as_deref()) {
            Err(Error::Server { sentence, .. }) if index.is_some() => {
                tracing::warn!(snapshot = snapshot.id, sentence, "mounting without the index");
                self.start(snapshot, &place, None)
            }
            started => started,
        };
        match started {
            Ok(child) => self.watch(snapshot.id, place.clone(), child)?,
            Err(error) => {
                place.clear()?;
                return Err(error);
            }
        }
        Ok(place.mountpoint)
    }

    fn start(&self, snapshot: &Snapshot, place: &Place, index: Option<&Path>) -> Result<Child> {
        let failed = |sentence: String| Error::Server { key: snapshot.key.clone(), sentence };
        let mut command = Command::new(&self.program);
        command.arg0("lamina-fs").arg("-o").arg(self.options(snapshot, index)?).arg(&place.mountpoint);
        for variable in ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
            command.env_remove(variable);
        }
        let mut child = background::spawn(&mut command)
            .map_err(|error| failed(format!("cannot start {}: {error}", self.program.display())))?;
        let noted = Identity::of(child.id()).and_then(|identity| place.note(&identity));
        let live = noted.and_then(|()| background::wait_live(&mut child).map_err(|error| failed(error.to_string())));
        match live {
            Ok(()) => {
                tracing::info!(snapshot = snapshot.id, server = child.id(), "mounted");
                Ok(child)
            }
            Err(error) => {
                // It ends by itself after its sentence; killing one that has ended is an error of no interest.
                drop(child.kill());
                child.wait().map_err(Error::io("wait for", &self.program))?;
                Err(error)
            }
        }
    }

    fn options(&self, snapshot: &Snapshot, index: Option<&Path>) -> Result<OsString> {
        let dirs = self.store.dirs();
        let mut lowers = self.store.lowers(snapshot)?;
        let mut options: Vec<u8> = b"fsname=lamina".to_vec();
        let mut path = |word: &str, path: &Path| {
            options.extend_from_slice(word.as_bytes());
            escape(path.as_os_str(), &mut options);
        };
        if snapshot.kind == Kind::Active {
            path(",upperdir=", &dirs.layer(snapshot.content));
            path(",workdir=", &dirs.work(snapshot.content));
        } else if lowers.is_empty() {
            lowers.push(dirs.layer(snapshot.content));
        }
        if let Some(index) = index {
            path(",index=", index);
        }
        for (at, lower) in lowers.iter().enumerate() {
            path(if at == 0 { ",lowerdir=" } else { ":" }, lower);
        }
        if snapshot.kind != Kind::Active {
            options.extend_from_slice(b",ro");
        }
        Ok(OsString::from_vec(options))
    }

    /// Ends the server of a snapshot that is about to be removed, and everything that its mount left.
    ///
    /// # Errors
    /// [`Error::Io`]; then the snapshot must stay.
    pub fn stop(&self, snapshot: u64) -> Result<()> {
        let lock = self.lock(snapshot);
        {
            let _held = lock.lock();
            Place::of(self.store.dirs(), snapshot).clear()?;
        }
        self.locks.lock().remove(&snapshot);
        Ok(())
    }

    /// Before a commit: what the kernel holds back of a mounted snapshot reaches its layer.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn flush(&self, snapshot: &Snapshot) -> Result<()> {
        let place = Place::of(self.store.dirs(), snapshot.id);
        if show(snapshot) != Show::Served || !place.is_served()? {
            return Ok(());
        }
        let root = fs::File::open(&place.mountpoint).map_err(Error::io("open", &place.mountpoint))?;
        rustix::fs::syncfs(&root).map_err(Error::io("sync", &place.mountpoint))
    }

    /// After a commit: the layer does not change any more. Whoever has the mount bound elsewhere can go on reading; the server ends
    /// when the last one lets go, and its watcher clears up. Returns what its server says that the layer takes for good; `None` if
    /// none knows, or somebody still writes.
    pub fn seal(&self, snapshot: u64) -> Option<Usage> {
        let lock = self.lock(snapshot);
        let _held = lock.lock();
        let place = Place::of(self.store.dirs(), snapshot);
        match place.is_served() {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => {
                tracing::warn!(snapshot, %error, "left mounted after its commit");
                return None;
            }
        }
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        let told = match nix::mount::mount(None::<&str>, &place.mountpoint, None::<&str>, flags, None::<&str>) {
            Ok(()) => place.usage(),
            Err(errno) => {
                tracing::warn!(snapshot, %errno, "somebody still writes to a snapshot that was committed");
                None
            }
        };
        if let Err(error) = place.unmount() {
            tracing::warn!(snapshot, %error, "left mounted after its commit");
        }
        match told {
            Some(Answer::Known(told)) => Some(Usage { size: told.bytes, inodes: told.inodes }),
            _ => None,
        }
    }

    /// After a start: finds the servers that run, and clears what those left that do not. `is_known` says which snapshots exist.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn recover(&self, is_known: impl Fn(u64) -> bool) -> Result<usize> {
        let mut found = 0;
        for name in crate::store::names(&self.store.dirs().mounts())? {
            let Ok(snapshot) = name.parse::<u64>() else { continue };
            let place = Place::of(self.store.dirs(), snapshot);
            match place.server()? {
                Some(process) if is_known(snapshot) => {
                    found += 1;
                    self.watch_process(snapshot, place, process, None)?;
                }
                _ => place.clear()?,
            }
        }
        Ok(found)
    }

    fn watch(&self, snapshot: u64, place: Place, mut child: Child) -> Result<()> {
        match Identity::of(child.id())?.find()? {
            Some(process) => self.watch_process(snapshot, place, process, Some(child)),
            None => child.wait().map(drop).map_err(Error::io("wait for", &self.program)),
        }
    }

    /// A thread that waits for the server's end, and clears up if nobody else did: a mount whose server is gone answers ENOTCONN.
    fn watch_process(&self, snapshot: u64, place: Place, process: Process, child: Option<Child>) -> Result<()> {
        let servers = self.clone();
        let watch = move || {
            process.wait();
            if let Some(mut child) = child
                && let Err(error) = child.wait()
            {
                tracing::warn!(snapshot, %error, "cannot wait for a server");
            }
            let lock = servers.lock(snapshot);
            let _held = lock.lock();
            // Somebody may have started another one meanwhile.
            match place.server() {
                Ok(None) if place.is_there() => {
                    tracing::info!(snapshot, "its server has ended");
                    if let Err(error) = place.clear() {
                        tracing::warn!(snapshot, %error, "cannot clear up after a server");
                    }
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(snapshot, %error, "cannot look after a server"),
            }
        };
        let thread = std::thread::Builder::new().name(format!("watch-{snapshot}")).stack_size(WATCHER_STACK_BYTES);
        thread.spawn(watch).map(drop).map_err(Error::io("start a thread for", &self.program))
    }

    fn lock(&self, snapshot: u64) -> Arc<Mutex<()>> {
        Arc::clone(self.locks.lock().entry(snapshot).or_default())
    }
}

/// `mounts/ID` of one snapshot.
#[derive(Clone, Debug)]
struct Place {
    directory: PathBuf,
    mountpoint: PathBuf,
    note: PathBuf,
}

impl Place {
    fn of(dirs: &Dirs, snapshot: u64) -> Place {
        let directory = dirs.mounts().join(snapshot.to_string());
        Place { mountpoint: directory.join("root"), note: directory.join("server"), directory }
    }

    fn is_there(&self) -> bool {
        self.directory.exists()
    }

    fn make(&self) -> Result<()> {
        fs::create_dir_all(&self.mountpoint).map_err(Error::io("create directory", &self.mountpoint))
    }

    /// Whether the server runs and its mount is there.
    fn is_served(&self) -> Result<bool> {
        Ok(self.server()?.is_some() && table::type_at(&self.mountpoint)?.as_deref() == Some(FUSE_TYPE))
    }

    /// The server that was noted, if it runs.
    fn server(&self) -> Result<Option<Process>> {
        match fs::read(&self.note) {
            // Cut short by a full disk: then nothing was mounted.
            Ok(text) => serde_json::from_slice::<Identity>(&text).map_or(Ok(None), |identity| identity.find()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &self.note)(error)),
        }
    }

    /// What the server says; `None` if it has just ended, does not serve its mount yet, or is of an older release.
    fn usage(&self) -> Option<Answer> {
        let told = Answer::read(&self.mountpoint);
        told.inspect_err(|error| tracing::debug!(%error, "a server does not tell what its layer takes")).ok()
    }

    fn note(&self, identity: &Identity) -> Result<()> {
        let text =
            serde_json::to_vec(identity).map_err(|error| Error::io("write", &self.note)(io::Error::from(error)))?;
        let aside = self.note.with_extension("new");
        fs::write(&aside, text).map_err(Error::io("write", &aside))?;
        fs::rename(&aside, &self.note).map_err(Error::io("write", &self.note))
    }

    /// Unmounts, ends the server and removes the directory; nothing there is well.
    fn clear(&self) -> Result<()> {
        if !self.is_there() {
            return Ok(());
        }
        let server = self.server()?;
        self.unmount()?;
        if let Some(process) = server
            && !process.ended_within(END_TIMEOUT_MS)
        {
            tracing::warn!(mountpoint = %self.mountpoint.display(), "killing a server whose mount is still in use elsewhere");
            process.signal(Signal::KILL)?;
            process.wait();
        }
        // A server that mounted between our looking and its end.
        self.unmount()?;
        for file in [&self.note, &self.note.with_extension("new")] {
            match fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io("delete", file)(error)),
                _ => {}
            }
        }
        for directory in [&self.mountpoint, &self.directory] {
            match fs::remove_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("delete", directory)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn unmount(&self) -> Result<()> {
        // Each turn takes one mount away, or fails.
        while table::type_at(&self.mountpoint)?.is_some() {
            let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
            match umount2(&self.mountpoint, flags) {
                Ok(()) => {}
                Err(nix::errno::Errno::EPERM) => self.fusermount()?,
                // It went by itself between our looking and our call.
                Err(_) if table::type_at(&self.mountpoint)?.is_none() => {}
                Err(errno) => return Err(Error::io("unmount", &self.mountpoint)(errno)),
            }
        }
        Ok(())
    }

    /// For a user without privilege.
    fn fusermount(&self) -> Result<()> {
        let status = Command::new("fusermount3").arg("-uz").arg("--").arg(&self.mountpoint).status();
        let failed = |status| io::Error::other(format!("fusermount3: {status}"));
        match status.map_err(Error::io("run fusermount3 to unmount", &self.mountpoint))? {
            status if status.success() => Ok(()),
            status => Err(Error::io("unmount", &self.mountpoint)(failed(status))),
        }
    }
}

/// What the option list of `lamina-fs` would read as punctuation gets a backslash.
fn escape(path: &OsStr, into: &mut Vec<u8>) {
    for byte in path.as_bytes() {
        if b"\\:,\"".contains(byte) {
            into.push(b'\\');
        }
        into.push(*byte);
    }
}
