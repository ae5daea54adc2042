//! What the mount table shows and what the kernel enforces by itself.
//!
//! Owns the words that go to mount(2). Must not know layers. Invariant: `default_permissions` is always on, so every
//! permission is checked by the kernel and none by us.

use super::words::{Word, escape, path};
use super::{Environment, OptionError};
use nix::mount::MsFlags;
use std::path::Path;

/// Who may use the mount at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The user that mounted it.
    Owner,
    /// That user and root (`allow_root`).
    OwnerAndRoot,
    /// Everybody, as far as modes and owners permit (`allow_other`).
    Everyone,
}

/// The words of a mount that are not about layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountSettings {
    /// First column of the mount table (`fsname`); none shows the subtype.
    source: Option<String>,
    /// The type in the mount table is `fuse.` and this (`subtype`).
    pub subtype: String,
    /// See mount(2).
    pub flags: MsFlags,
    /// Who may use it.
    pub access: Access,
    /// fusermount3 stays and unmounts when the server is gone, however it ended (`auto_unmount`).
    pub auto_unmount: bool,
}

/// Words that set and words that clear a flag, with the word for each state.
const FLAGS: [(MsFlags, &str, &str); 8] = [
    (MsFlags::MS_RDONLY, "ro", "rw"),
    (MsFlags::MS_NOSUID, "nosuid", "suid"),
    (MsFlags::MS_NODEV, "nodev", "dev"),
    (MsFlags::MS_NOEXEC, "noexec", "exec"),
    (MsFlags::MS_NOATIME, "noatime", "atime"),
    (MsFlags::MS_NODIRATIME, "nodiratime", "diratime"),
    (MsFlags::MS_SYNCHRONOUS, "sync", "async"),
    (MsFlags::MS_DIRSYNC, "dirsync", ""),
];

impl MountSettings {
    /// What fuse-overlayfs injects before the user's words: for root `allow_other,suid,dev,noatime`, else `noatime`.
    pub(super) fn new(environment: &Environment) -> MountSettings {
        let (flags, access) = match environment.root {
            true => (MsFlags::empty(), Access::Everyone),
            false => (MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Access::Owner),
        };
        MountSettings {
            source: None,
            subtype: environment.name.as_str().to_owned(),
            flags: flags | MsFlags::MS_NOATIME,
            access,
            auto_unmount: false,
        }
    }

    /// First column of the mount table.
    pub fn source(&self) -> &str {
        self.source.as_deref().unwrap_or(&self.subtype)
    }

    pub(super) fn make_read_only(&mut self) {
        self.flags |= MsFlags::MS_RDONLY;
    }

    /// Takes a word; false if it is not one of these.
    pub(super) fn apply(&mut self, word: &Word) -> Result<bool, OptionError> {
        if word.value().is_none() {
            for (flag, set, clear) in FLAGS {
                if word.key() == set || word.key() == clear {
                    self.flags.set(flag, word.key() == set);
                    if word.key() == "noatime" {
                        self.flags -= MsFlags::MS_RELATIME | MsFlags::MS_STRICTATIME;
                    }
                    return Ok(true);
                }
            }
        }
        match word.key() {
            "relatime" => {
                self.flags -= MsFlags::MS_NOATIME | MsFlags::MS_STRICTATIME;
                self.flags |= MsFlags::MS_RELATIME;
            }
            "strictatime" => {
                self.flags -= MsFlags::MS_NOATIME | MsFlags::MS_RELATIME;
                self.flags |= MsFlags::MS_STRICTATIME;
            }
            "allow_other" => self.access = Access::Everyone,
            "allow_root" => self.access = Access::OwnerAndRoot,
            "default_permissions" => {}
            "auto_unmount" => self.auto_unmount = true,
            "fsname" => self.source = Some(text(word)?),
            "subtype" => self.subtype = text(word)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The words that set all this.
    pub(super) fn words(&self) -> Vec<Vec<u8>> {
        let state = |(flag, set, clear): (MsFlags, &'static str, &'static str)| {
            if self.flags.contains(flag) { set } else { clear }
        };
        let mut words: Vec<&str> = FLAGS.map(state).into_iter().filter(|w| !w.is_empty()).collect();
        if self.flags.contains(MsFlags::MS_RELATIME) {
            words.push("relatime");
        }
        if self.flags.contains(MsFlags::MS_STRICTATIME) {
            words.push("strictatime");
        }
        match self.access {
            Access::Owner => {}
            Access::OwnerAndRoot => words.push("allow_root"),
            Access::Everyone => words.push("allow_other"),
        }
        if self.auto_unmount {
            words.push("auto_unmount");
        }
        let mut words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        words.push([b"subtype=", &escape(Path::new(&self.subtype))[..]].concat());
        if let Some(source) = &self.source {
            words.push([b"fsname=", &escape(Path::new(source))[..]].concat());
        }
        words
    }
}

fn text(word: &Word) -> Result<String, OptionError> {
    Ok(path(word.required()?).to_string_lossy().into_owned())
}
