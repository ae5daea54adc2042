//! Directories of the host inside, in memory, and those that an image wants kept apart from its layers.
//!
//! Owns the syntax of `-v` and `--tmpfs`. Invariant: the source of a volume was there when it was parsed.

use super::Wish;
use crate::container::{Error, Result};
use oci_spec::image::Config;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Words that a bind mount takes, of mount(8); `z` and `Z` are for SELinux, and mean nothing without.
const WORDS: [&str; 18] = [
    "ro", "rw", "z", "Z", "exec", "noexec", "suid", "nosuid", "dev", "nodev", "private", "rprivate", "shared",
    "rshared", "slave", "rslave", "bind", "rbind",
];

/// `-v [SOURCE:]DESTINATION[:OPTIONS]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Of the host, absolute; none for an empty directory that comes and goes with the container.
    pub source: Option<PathBuf>,
    /// Inside, absolute.
    pub destination: String,
    /// As in fstab(5).
    pub options: Vec<String>,
}

impl FromStr for Volume {
    type Err = Error;

    fn from_str(text: &str) -> Result<Volume> {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, destination, options) = match parts.as_slice() {
            [destination] => (None, *destination, ""),
            [source, destination] => (Some(*source), *destination, ""),
            [source, destination, options] => (Some(*source), *destination, *options),
            _ => return Err(Error::usage(format!("invalid volume {text:?}: write SOURCE:DESTINATION[:OPTIONS]"))),
        };
        check_destination(text, destination)?;
        let source = source.map(|source| existing(text, source)).transpose()?;
        let options: Vec<String> = options.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        match options.iter().find(|word| !WORDS.contains(&word.as_str())) {
            Some(word) => {
                Err(Error::usage(format!("invalid volume {text:?}: {word:?} is none of {}", WORDS.join(", "))))
            }
            None => Ok(Volume { source, destination: destination.to_owned(), options }),
        }
    }
}

fn check_destination(text: &str, destination: &str) -> Result<()> {
    match destination {
        "/" => Err(Error::usage(format!("invalid volume {text:?}: destination can't be '/'"))),
        path if path.starts_with('/') => Ok(()),
        _ => Err(Error::usage(format!("invalid volume {text:?}: the destination must be an absolute path"))),
    }
}

fn existing(text: &str, source: &str) -> Result<PathBuf> {
    if !source.starts_with(['/', '.', '~']) {
        return Err(Error::usage(format!(
            "invalid volume {text:?}: named volumes are not supported, so {source:?} must be the path of a directory or file of this host; \
             write ./{source} for one in the current directory"
        )));
    }
    let path = Path::new(source);
    path.canonicalize().map_err(|error| {
        Error::usage(format!(
            "invalid volume {text:?}: bind source path {source} cannot be used: {error}; make it first"
        ))
    })
}

/// `--tmpfs DESTINATION[:OPTIONS]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// Inside, absolute.
    pub destination: String,
    /// As in tmpfs(5) and mount(8).
    pub options: Vec<String>,
}

impl FromStr for Tmpfs {
    type Err = Error;

    fn from_str(text: &str) -> Result<Tmpfs> {
        let (destination, options) = text.split_once(':').unwrap_or((text, ""));
        check_destination(text, destination)?;
        let options = options.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        Ok(Tmpfs { destination: destination.to_owned(), options })
    }
}

/// Where a destination stands, however it is written.
fn plain(destination: &str) -> PathBuf {
    crate::oci::resolve::lexical(Path::new(destination))
}

/// The anonymous volumes: those of the image that nothing else covers, and those of the user without a source.
pub fn anonymous(wish: &Wish, image: Option<&Config>) -> Vec<String> {
    let is_covered = |path: &String| {
        let at = plain(path);
        wish.volumes.iter().any(|volume| plain(&volume.destination) == at)
            || wish.tmpfs.iter().any(|tmpfs| plain(&tmpfs.destination) == at)
    };
    let of_image = image.and_then(|image| image.volumes().clone()).unwrap_or_default();
    let mut all: Vec<String> = of_image.into_iter().filter(|path| !is_covered(path)).collect();
    all.extend(wish.volumes.iter().filter(|volume| volume.source.is_none()).map(|volume| volume.destination.clone()));
    all.sort();
    all.dedup();
    all
}

/// All of them as mounts; what lies deeper comes later, so that it is not covered.
pub fn mounts(wish: &Wish, anonymous: &[String], dir: &Path) -> Vec<Value> {
    let mut found: Vec<(PathBuf, Value)> = Vec::new();
    for (at, destination) in anonymous.iter().enumerate() {
        let source = dir.join("volumes").join(at.to_string());
        // What the image has there is copied into it at the first start.
        let options = json!(["rbind", "rprivate", "rw", "tmpcopyup"]);
        found.push((
            plain(destination),
            json!({"destination": destination, "type": "bind", "source": source, "options": options}),
        ));
    }
    for volume in &wish.volumes {
        let Some(source) = &volume.source else { continue };
        let mut options = vec!["rbind".to_owned()];
        if !volume
            .options
            .iter()
            .any(|word| word.ends_with("private") || word.ends_with("shared") || word.ends_with("slave"))
        {
            options.push("rprivate".to_owned());
        }
        options.extend(volume.options.iter().filter(|word| !["z", "Z"].contains(&word.as_str())).cloned());
        let mount = json!({"destination": volume.destination, "type": "bind", "source": source, "options": options});
        found.push((plain(&volume.destination), mount));
    }
    for tmpfs in &wish.tmpfs {
        let mut options: Vec<String> = ["nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
        options.extend(tmpfs.options.iter().cloned());
        let mount = json!({"destination": tmpfs.destination, "type": "tmpfs", "source": "tmpfs", "options": options});
        found.push((plain(&tmpfs.destination), mount));
    }
    found.sort_by_key(|(at, _)| at.components().count());
    found.into_iter().map(|(_, mount)| mount).collect()
}
