//! The command line of fuse-overlayfs, which is also ours.
//!
//! Owns the option string, both ways: text to `Options` and back. Must not know FUSE or open files. Invariants: parsing is
//! pure and never panics; what does not make sense is an error with a whole sentence, what is merely unknown is a warning.

mod error;
pub mod help;
mod mount_flags;
pub mod table;
mod words;

#[cfg(test)]
mod tests;

pub use error::OptionError;
pub use mount_flags::{Access, MountSettings};

use crate::union::{Config, IdMap, IdPolicy, OverrideStat, Squash, UpperConfig, XattrPolicy};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;
use words::{Word, escape, lower_paths, path, split};

/// How long the kernel may believe an answer, unless `timeout` says otherwise: for ever, as only we change the layers.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(1_000_000_000);

/// Whether the kernel collects writes before it sends them, unless `writeback` says otherwise. fuse-overlayfs has it on.
const WRITEBACK_DEFAULT: bool = false;

/// The name under which the program was started; it decides what callers find in the mount table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramName {
    /// `lamina-fs`
    LaminaFs,
    /// `fuse-overlayfs`, by a link or a copy with that name.
    FuseOverlayfs,
}

impl ProgramName {
    /// The name that an `argv[0]` means.
    pub fn of(argv0: &OsStr) -> ProgramName {
        match std::path::Path::new(argv0).file_name() {
            Some(name) if name == "fuse-overlayfs" => ProgramName::FuseOverlayfs,
            _ => ProgramName::LaminaFs,
        }
    }

    /// As shown in the mount table, as source and as `fuse.TYPE`.
    pub fn as_str(self) -> &'static str {
        match self {
            ProgramName::LaminaFs => "lamina-fs",
            ProgramName::FuseOverlayfs => "fuse-overlayfs",
        }
    }
}

/// What the parser needs to know besides the words.
#[derive(Clone, Copy, Debug)]
pub struct Environment {
    /// How the program was called.
    pub name: ProgramName,
    /// Whether the effective user id is 0, also inside a user namespace: other defaults apply.
    pub root: bool,
    /// Whether `FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT` is set.
    pub dot_whiteouts: bool,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// `--help`
    Help,
    /// `--version`
    Version,
    /// A mount.
    Mount(Box<Options>),
}

/// Where the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// Detached; the command returns when the mount is live.
    Background,
    /// `-f`: in the terminal until unmounted.
    Foreground,
    /// `-d`: as `-f`, and every request is printed.
    Debug,
}

/// How the data of files is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// `io=cached`: through the server and the mount's own page cache; opening a file makes no request.
    Cached,
    /// `io=passthrough`: by the kernel itself where it can; every open is a request.
    Passthrough,
}

/// How many requests are answered at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// `threaded=0`; long copies still get threads of their own.
    One,
    /// As many as the processors make sensible.
    Many,
}

/// What fsync(2) inside the mount, and a crash, mean for the upper layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// fsync reaches the disk.
    Synced,
    /// `fsync=0`: fsync does nothing.
    Unsynced,
    /// `volatile`: as `Unsynced`, and a mark in the work directory tells that a crash makes the upper layer worthless.
    Volatile,
}

/// An id map with the text it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapping {
    text: String,
    map: IdMap,
}

/// A mount, as the command line describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Where the union appears.
    pub mountpoint: PathBuf,
    /// Read-only layers, topmost first; never empty.
    pub lowers: Vec<PathBuf>,
    /// The writable layer; none makes the mount read-only.
    pub upper: Option<UpperConfig>,
    /// User ids of the layers, as shown.
    pub uids: Option<Mapping>,
    /// Group ids of the layers, as shown.
    pub gids: Option<Mapping>,
    /// Ids shown for everything instead.
    pub squash_uid: Option<u32>,
    /// Ids shown for everything instead.
    pub squash_gid: Option<u32>,
    /// Whether extended attributes exist at all (`noxattrs=1`: no).
    pub xattrs: bool,
    /// Where owner and mode are kept (`xattr_permissions`).
    pub override_stat: OverrideStat,
    /// POSIX ACLs (`noacl`: no).
    pub acl: bool,
    /// Every directory shows one link (`static_nlink`).
    pub static_nlink: bool,
    /// Whiteouts are written as `.wh.NAME` even where devices could be made.
    pub dot_whiteouts: bool,
    /// `fsync`, `sync` and `volatile`.
    pub durability: Durability,
    /// How long the kernel may believe names and attributes.
    pub timeout: Duration,
    /// The index of the lower layers (`index`).
    pub index: Option<PathBuf>,
    /// The kernel collects writes (`writeback`).
    pub writeback: bool,
    /// How data is reached (`io`).
    pub io: Io,
    /// Request threads (`threaded`).
    pub threads: Threads,
    /// What the mount table shows and the kernel enforces.
    pub mount: MountSettings,
    /// Where the server runs.
    pub ground: Ground,
    /// Whole sentences for stderr.
    pub warnings: Vec<String>,
}

impl Options {
    /// Reads the arguments after the program's name.
    ///
    /// # Errors
    /// A sentence for whatever cannot be mounted as asked.
    pub fn parse(
        arguments: impl IntoIterator<Item = OsString>,
        environment: &Environment,
    ) -> Result<Invocation, OptionError> {
        let mut options = Options::new(environment);
        let mut positional = None;
        let mut only_positional = false;
        let mut work = None;
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.as_bytes() {
                _ if only_positional => positional = Some(argument),
                b"--" => only_positional = true,
                b"-h" | b"--help" => return Ok(Invocation::Help),
                b"-V" | b"--version" => return Ok(Invocation::Version),
                b"-f" if options.ground == Ground::Background => options.ground = Ground::Foreground,
                b"-f" => {}
                b"-d" | b"--debug" => options.ground = Ground::Debug,
                b"-o" => {
                    let words = arguments.next().ok_or(OptionError::ListMissing)?;
                    options.apply_list(words.as_bytes(), &mut work)?;
                }
                [b'-', b'o', words @ ..] => options.apply_list(words, &mut work)?,
                [b'-', _, ..] => options.warn_unknown(&argument),
                // The last one is the mountpoint: mount(8) puts a source before it.
                _ => positional = Some(argument),
            }
        }
        options.mountpoint = positional.ok_or(OptionError::MountpointMissing)?.into();
        options.settle(work)?;
        Ok(Invocation::Mount(Box::new(options)))
    }

    fn new(environment: &Environment) -> Options {
        Options {
            mountpoint: PathBuf::new(),
            lowers: Vec::new(),
            upper: None,
            uids: None,
            gids: None,
            squash_uid: None,
            squash_gid: None,
            xattrs: true,
            override_stat: OverrideStat::Off,
            acl: true,
            static_nlink: false,
            dot_whiteouts: environment.dot_whiteouts,
            durability: Durability::Synced,
            timeout: TIMEOUT_DEFAULT,
            index: None,
            writeback: WRITEBACK_DEFAULT,
            io: Io::Cached,
            threads: Threads::Many,
            mount: MountSettings::new(environment),
            ground: Ground::Background,
            warnings: Vec::new(),
        }
    }

    fn warn_unknown(&mut self, word: &OsStr) {
        self.warnings.push(format!("unknown argument ignored: {}", word.to_string_lossy()));
    }

    fn apply_list(&mut self, list: &[u8], work: &mut Option<PathBuf>) -> Result<(), OptionError> {
        split(list).iter().try_for_each(|word| self.apply(word, work))
    }

    /// Takes one word of a `-o` list. Of a repeated word the last one counts.
    fn apply(&mut self, word: &Word, work: &mut Option<PathBuf>) -> Result<(), OptionError> {
        match word.key() {
            "lowerdir" => self.lowers = lower_paths(word.required()?)?,
            // The work directory joins it in `settle`, whichever comes first.
            "upperdir" => {
                let upper = path(word.required()?);
                self.upper = Some(UpperConfig { upper, work: PathBuf::new() });
            }
            "workdir" => *work = Some(path(word.required()?)),
            "uidmapping" => self.uids = Some(mapping(word)?),
            "gidmapping" => self.gids = Some(mapping(word)?),
            "squash_to_root" => {
                let id = word.switch()?.then_some(0);
                (self.squash_uid, self.squash_gid) = (id, id);
            }
            "squash_to_uid" => self.squash_uid = Some(word.id()?),
            "squash_to_gid" => self.squash_gid = Some(word.id()?),
            "static_nlink" => self.static_nlink = word.switch()?,
            "noacl" => self.acl = !word.switch()?,
            "noxattrs" => self.xattrs = !word.switch()?,
            "xattr_permissions" => {
                self.override_stat = match word.required()? {
                    b"0" => OverrideStat::Off,
                    b"1" => OverrideStat::Privileged,
                    b"2" => OverrideStat::User,
                    _ => return Err(word.refused("0, 1 or 2")),
                };
            }
            "volatile" if word.switch()? => self.durability = Durability::Volatile,
            "fsync" => self.set_sync(word.switch()?),
            // Without a value it is the flag of mount(8), below.
            "sync" if word.value().is_some() => self.set_sync(word.switch()?),
            "timeout" => self.timeout = word.seconds()?,
            // `on` and `off` are words of the kernel's overlayfs: hard links stay one file here in any case.
            "index" if !matches!(word.value(), Some(b"on" | b"off")) => self.index = Some(path(word.required()?)),
            "writeback" => self.writeback = word.switch()?,
            "io" => {
                self.io = match word.required()? {
                    b"cached" => Io::Cached,
                    b"passthrough" => Io::Passthrough,
                    _ => return Err(word.refused("cached or passthrough")),
                };
            }
            "threaded" => {
                self.threads = if word.switch()? { Threads::Many } else { Threads::One };
            }
            "redirect_dir" if word.value() != Some(b"off") => {
                return Err(OptionError::RedirectDir);
            }
            "plugins" => return Err(OptionError::Plugins),
            "xino" => match word.required()? {
                b"off" | b"auto" | b"on" => {}
                _ => return Err(word.refused("off, auto or on; numbers are stable in any case")),
            },
            "fast_ino" | "ino32_t" => {
                word.switch()?;
            }
            _ if self.mount.apply(word)? || table::is_accepted(word.key()) => {}
            _ => self.warn_unknown(&OsString::from_vec(word.text())),
        }
        Ok(())
    }

    fn set_sync(&mut self, sync: bool) {
        self.durability = match (self.durability, sync) {
            (Durability::Volatile, _) => Durability::Volatile,
            (_, true) => Durability::Synced,
            (_, false) => Durability::Unsynced,
        };
    }

    /// Brings together what may come in any order.
    fn settle(&mut self, work: Option<PathBuf>) -> Result<(), OptionError> {
        if self.lowers.is_empty() {
            return Err(OptionError::LowerMissing);
        }
        match (&mut self.upper, work) {
            (Some(upper), Some(work)) => upper.work = work,
            (Some(_), None) => return Err(OptionError::WorkMissing),
            (None, Some(_)) => {
                self.warnings.push("workdir is ignored: without an upperdir the mount is read-only".to_owned())
            }
            (None, None) => {}
        }
        if self.io == Io::Passthrough && self.writeback {
            return Err(OptionError::PassthroughWriteback);
        }
        if self.upper.is_none() {
            self.mount.make_read_only();
        }
        if self.mount.auto_unmount && self.mount.access == Access::Owner {
            // fusermount3 looks into the mount as root before it unmounts.
            self.warnings.push("auto_unmount has no effect without allow_other or allow_root".to_owned());
        }
        Ok(())
    }

    /// What the union needs to know; `descriptors_max` is the caller's to set aside.
    pub fn union(&self, descriptors_max: usize) -> Config {
        let map =
            |mapping: &Option<Mapping>| mapping.as_ref().map_or_else(IdMap::identity, |mapping| mapping.map.clone());
        let squash = match (self.squash_uid, self.squash_gid) {
            (None, None) => Squash::None,
            (uid, gid) => Squash::To { uid, gid },
        };
        Config {
            lowers: self.lowers.clone(),
            upper: self.upper.clone(),
            ids: IdPolicy { uids: map(&self.uids), gids: map(&self.gids), squash },
            xattrs: XattrPolicy { enabled: self.xattrs, override_stat: self.override_stat },
            static_nlink: self.static_nlink,
            sync: self.durability == Durability::Synced,
            volatile: self.durability == Durability::Volatile,
            force_dot_whiteouts: self.dot_whiteouts,
            index: self.index.clone(),
            acl: self.acl,
            descriptors_max,
        }
    }

    /// The list for `-o` that means the same as these options.
    pub fn to_option_string(&self) -> OsString {
        let mut words: Vec<Vec<u8>> = Vec::new();
        let mut add = |key: &str, value: &[u8]| words.push([key.as_bytes(), b"=", value].concat());
        let lowers: Vec<Vec<u8>> = self.lowers.iter().map(|lower| escape(lower)).collect();
        add("lowerdir", &lowers.join(&b':'));
        if let Some(UpperConfig { upper, work }) = &self.upper {
            add("upperdir", &escape(upper));
            add("workdir", &escape(work));
        }
        for (key, mapping) in [("uidmapping", &self.uids), ("gidmapping", &self.gids)] {
            if let Some(mapping) = mapping {
                add(key, mapping.text.as_bytes());
            }
        }
        for (key, id) in [("squash_to_uid", self.squash_uid), ("squash_to_gid", self.squash_gid)] {
            if let Some(id) = id {
                add(key, id.to_string().as_bytes());
            }
        }
        let override_stat = match self.override_stat {
            OverrideStat::Off => "0",
            OverrideStat::Privileged => "1",
            OverrideStat::User => "2",
        };
        add("xattr_permissions", override_stat.as_bytes());
        add("timeout", format!("{}", self.timeout.as_secs_f64()).as_bytes());
        let digit = |on: bool| if on { b"1" } else { b"0" };
        add("static_nlink", digit(self.static_nlink));
        add("noacl", digit(!self.acl));
        add("noxattrs", digit(!self.xattrs));
        if let Some(index) = &self.index {
            add("index", &escape(index));
        }
        add("writeback", digit(self.writeback));
        let io: &[u8] = match self.io {
            Io::Cached => b"cached",
            Io::Passthrough => b"passthrough",
        };
        add("io", io);
        add("threaded", digit(self.threads == Threads::Many));
        match self.durability {
            Durability::Synced => add("fsync", b"1"),
            Durability::Unsynced => add("fsync", b"0"),
            Durability::Volatile => words.push(b"volatile".to_vec()),
        }
        words.extend(self.mount.words());
        OsString::from_vec(words.join(&b','))
    }
}

fn mapping(word: &Word) -> Result<Mapping, OptionError> {
    let text = String::from_utf8_lossy(word.required()?).into_owned();
    match IdMap::parse(&text) {
        Ok(map) => Ok(Mapping { text, map }),
        Err(cause) => Err(OptionError::Mapping { word: word.key().to_owned(), cause }),
    }
}
