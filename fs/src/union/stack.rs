//! The layers of one mount.
//!
//! Owns opening and checking them. Must not know inodes. Invariant: nothing has changed on disk when this fails, but for
//! the work directory, which is made where it is missing and emptied last.

use super::{Config, MAX_LOWERS};
use crate::error::{Error, Result};
use crate::layer::{Layer, LayerId, OverrideStat, SetupError, Upper, WhiteoutStyle, WorkDir, check_overlap};
use crate::sys::open;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// The upper layer, if any, and the lower ones.
pub struct Stack {
    /// `None`: the mount is read-only.
    pub upper: Option<Upper>,
    lowers: Vec<Layer>,
}

impl Stack {
    /// Opens the layers that a mount is asked for.
    pub fn open(config: &Config) -> Result<Stack, SetupError> {
        check_proc()?;
        if config.lowers.is_empty() {
            return Err(SetupError::NoLower);
        }
        if config.lowers.len() > MAX_LOWERS {
            return Err(SetupError::TooManyLowers { count: config.lowers.len(), max: MAX_LOWERS });
        }
        let roots = open_lowers(&config.lowers)?;
        let upper = match &config.upper {
            Some(wanted) => Some((wanted, open_upper(config, &roots)?)),
            None => None,
        };
        let overridden = config.xattrs.override_stat != OverrideStat::Off;
        let mut lowers = Vec::new();
        for (position, (path, root)) in roots.into_iter().enumerate() {
            let id = LayerId(position as u16 + 1);
            let root = open::without_submounts(root);
            lowers.push(Layer::new(id, root, overridden).map_err(|error| SetupError::Lower { path, error })?);
        }
        let upper = match upper {
            None => None,
            Some((wanted, (root, base))) => {
                let style = match config.force_dot_whiteouts {
                    true => WhiteoutStyle::Dot,
                    false => WhiteoutStyle::Device,
                };
                let work = WorkDir::prepare(base, &wanted.work, config.volatile)?;
                let fail = |error| SetupError::Upper { path: wanted.upper.clone(), error };
                Some(Upper::new(root, work, style, config.xattrs.override_stat).map_err(fail)?)
            }
        };
        Ok(Stack { upper, lowers })
    }

    /// The upper layer.
    ///
    /// # Errors
    /// `ReadOnly` where there is none.
    pub fn upper(&self) -> Result<&Upper> {
        self.upper.as_ref().ok_or(Error::ReadOnly)
    }

    /// A layer by its place.
    pub fn layer(&self, id: LayerId) -> Result<&Layer> {
        match id {
            LayerId::UPPER => Ok(self.upper()?.layer()),
            LayerId(place) => self.lowers.get(usize::from(place) - 1).ok_or(Error::NoSuchInode),
        }
    }

    /// Every layer, topmost first.
    pub fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.upper.iter().map(Upper::layer).chain(&self.lowers)
    }
}

fn check_proc() -> Result<(), SetupError> {
    let root = open::open_root("/".as_ref()).map_err(|error| SetupError::NoProc { error })?;
    open::reopen_data(root.as_fd(), open::Access::Read).map(drop).map_err(|error| SetupError::NoProc { error })
}

fn open_lowers(paths: &[PathBuf]) -> Result<Vec<(PathBuf, OwnedFd)>, SetupError> {
    paths
        .iter()
        .map(|path| {
            let fail = |error| SetupError::Lower { path: path.clone(), error };
            let root = open::open_root(path).map_err(fail)?;
            Ok((path.clone(), root))
        })
        .collect()
}

fn open_upper(config: &Config, lowers: &[(PathBuf, OwnedFd)]) -> Result<(OwnedFd, OwnedFd), SetupError> {
    let Some(wanted) = &config.upper else { return Err(SetupError::NoLower) };
    let root = Upper::open_root(&wanted.upper)?;
    let base = WorkDir::open(&wanted.work)?;
    let lowers: Vec<_> = lowers.iter().map(|(path, fd)| (path.clone(), fd.as_fd())).collect();
    check_overlap((&wanted.upper, root.as_fd()), (&wanted.work, base.as_fd()), &lowers)?;
    Ok((root, base))
}
