//! Mount options of config.json, parsed into what the kernel's calls take.
//!
//! Owns the table. Must not know where the mount goes. Invariant: an option that is no flag of ours goes to the filesystem,
//! which refuses what it does not know; a bind has no filesystem to ask, so there it is refused here.

use crate::error::{Error, Result};
use crate::sys::mount::Attributes;
use libc::{
    MOUNT_ATTR__ATIME as ATIME, MOUNT_ATTR_NOATIME as NOATIME, MOUNT_ATTR_NODEV as NODEV,
    MOUNT_ATTR_NODIRATIME as NODIRATIME, MOUNT_ATTR_NOEXEC as NOEXEC, MOUNT_ATTR_NOSUID as NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW as NOSYMFOLLOW, MOUNT_ATTR_RDONLY as RDONLY, MOUNT_ATTR_RELATIME as RELATIME,
    MOUNT_ATTR_STRICTATIME as STRICTATIME, MS_PRIVATE, MS_SHARED, MS_SLAVE, MS_UNBINDABLE,
};

/// Whether a mount shows another directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bind {
    /// A filesystem of its own.
    No,
    /// Only the directory's mount.
    Plain,
    /// The mounts below it too.
    Recursive,
}

/// Whether the mount maps owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdMap {
    /// Owners are as they are.
    No,
    /// This mount.
    Plain,
    /// The mounts below it too.
    Recursive,
}

/// One change of propagation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagation {
    /// `MS_*`.
    pub kind: u64,
    /// Of the mounts below too.
    pub recursive: bool,
}

/// All options of one mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Whether and how it binds.
    pub bind: Bind,
    /// Changes flags of what is mounted there already.
    pub remount: bool,
    /// Fills a tmpfs with what it hides.
    pub copy_up: bool,
    /// Whether owners are mapped.
    pub id_map: IdMap,
    /// Of the mount itself.
    pub attributes: Attributes,
    /// Of the mount and all below.
    pub recursive: Attributes,
    /// In order.
    pub propagation: Vec<Propagation>,
    /// For the filesystem: `key` or `key=value`.
    pub data: Vec<(String, Option<String>)>,
}

/// Flags of the mount. With `r` before the name they hold for all mounts below too.
const FLAGS: [(&str, u64, u64); 19] = [
    ("ro", RDONLY, 0),
    ("rw", 0, RDONLY),
    ("nosuid", NOSUID, 0),
    ("suid", 0, NOSUID),
    ("nodev", NODEV, 0),
    ("dev", 0, NODEV),
    ("noexec", NOEXEC, 0),
    ("exec", 0, NOEXEC),
    ("nodiratime", NODIRATIME, 0),
    ("diratime", 0, NODIRATIME),
    ("nosymfollow", NOSYMFOLLOW, 0),
    ("symfollow", 0, NOSYMFOLLOW),
    ("noatime", NOATIME, ATIME),
    ("atime", RELATIME, ATIME),
    ("relatime", RELATIME, ATIME),
    ("norelatime", STRICTATIME, ATIME),
    ("strictatime", STRICTATIME, ATIME),
    ("nostrictatime", RELATIME, ATIME),
    ("defaults", 0, 0),
];

const PROPAGATION: [(&str, u64); 4] =
    [("shared", MS_SHARED), ("slave", MS_SLAVE), ("private", MS_PRIVATE), ("unbindable", MS_UNBINDABLE)];

/// Flags of the whole filesystem, which fsconfig(2) takes under these names; a bind shares its source's and ignores them.
const FILESYSTEM: [&str; 6] = ["sync", "async", "dirsync", "lazytime", "nolazytime", "mand"];

/// Flags without meaning to the calls that are used: they only made mount(8) or the kernel log more or less.
const IGNORED: [&str; 7] = ["silent", "loud", "iversion", "noiversion", "nomand", "acl", "noacl"];

/// Every option that has a meaning here, for `features`.
pub fn names() -> Vec<String> {
    let flags = FLAGS.iter().map(|(name, ..)| *name);
    let recursive = FLAGS.iter().filter(|(name, ..)| *name != "defaults").map(|(name, ..)| format!("r{name}"));
    let propagation = PROPAGATION.iter().flat_map(|(name, _)| [(*name).to_owned(), format!("r{name}")]);
    let others = ["bind", "rbind", "remount", "tmpcopyup", "idmap", "ridmap"];
    let plain = flags.chain(others).chain(FILESYSTEM).chain(IGNORED).map(str::to_owned);
    let mut names: Vec<String> = plain.chain(recursive).chain(propagation).collect();
    names.sort();
    names
}

impl Options {
    /// Reads the options of one mount, whose destination is named in errors.
    pub fn parse(words: &[String], kind: &str, destination: &str) -> Result<Self> {
        let mut options = Options {
            bind: if kind == "bind" { Bind::Plain } else { Bind::No },
            remount: false,
            copy_up: false,
            id_map: IdMap::No,
            attributes: Attributes::default(),
            recursive: Attributes::default(),
            propagation: Vec::new(),
            data: Vec::new(),
        };
        for word in words {
            options.take(word);
        }
        match options.data.iter().find(|_| options.bind != Bind::No) {
            Some((key, _)) => Err(Error::invalid(
                format!("mounts: {destination}"),
                format!("{key:?} is no option of a bind mount; remove it"),
            )),
            None => Ok(options),
        }
    }

    fn take(&mut self, word: &str) {
        match word {
            "bind" => self.bind = Bind::Plain,
            "rbind" => self.bind = Bind::Recursive,
            "remount" => self.remount = true,
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.id_map = IdMap::Plain,
            "ridmap" => self.id_map = IdMap::Recursive,
            _ if IGNORED.contains(&word) => {}
            _ => self.take_flag(word),
        }
    }

    fn take_flag(&mut self, word: &str) {
        let flag = |name: &str| FLAGS.iter().find(|(known, ..)| *known == name);
        let kind = |name: &str| PROPAGATION.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
        let below = word.strip_prefix('r').unwrap_or_default();
        // Names as they stand come first: `ro` and `relatime` begin with an r of their own.
        match (flag(word), kind(word), flag(below), kind(below)) {
            (Some((_, set, clear)), ..) => apply(&mut self.attributes, *set, *clear),
            (_, Some(kind), ..) => self.propagation.push(Propagation { kind, recursive: false }),
            (_, _, Some((_, set, clear)), _) => apply(&mut self.recursive, *set, *clear),
            (.., Some(kind)) => self.propagation.push(Propagation { kind, recursive: true }),
            _ if FILESYSTEM.contains(&word) && self.bind != Bind::No => {}
            _ => self.data.push(match word.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (word.to_owned(), None),
            }),
        }
    }
}

/// The last word on a flag wins.
fn apply(attributes: &mut Attributes, set: u64, clear: u64) {
    attributes.set = attributes.set & !clear | set;
    attributes.clear = attributes.clear & !set | clear;
    // Access times are one number, not bits: the kernel wants all of it cleared whenever any of it is set.
    if (attributes.clear | clear) & ATIME != 0 {
        attributes.clear |= ATIME;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str], kind: &str) -> Result<Options> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Options::parse(&words, kind, "/there")
    }

    #[test]
    fn the_last_word_on_a_flag_wins() {
        let options = parse(&["ro", "nosuid", "rw"], "tmpfs").unwrap();
        assert_eq!(options.attributes, Attributes { set: NOSUID, clear: RDONLY, propagation: 0 });
    }

    #[test]
    fn an_r_before_a_flag_means_all_mounts_below() {
        let options = parse(&["rbind", "rro", "ro", "rslave"], "bind").unwrap();
        assert_eq!((options.attributes.set, options.recursive.set), (RDONLY, RDONLY));
        assert_eq!(options.propagation, [Propagation { kind: MS_SLAVE, recursive: true }]);
        assert_eq!(options.bind, Bind::Recursive);
    }

    #[test]
    fn access_times_are_cleared_before_they_are_set() {
        let options = parse(&["noatime", "strictatime"], "tmpfs").unwrap();
        assert_eq!((options.attributes.set, options.attributes.clear), (STRICTATIME, ATIME));
    }

    #[test]
    fn what_is_no_flag_goes_to_the_filesystem_and_not_to_a_bind() {
        let options = parse(&["size=64k", "mode=1777", "sync"], "tmpfs").unwrap();
        assert_eq!(options.data.len(), 3);
        assert!(parse(&["bind", "size=64k"], "none").is_err());
    }
}
