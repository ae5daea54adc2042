//! A name of an archive, taken apart.
//!
//! Invariant: no component is empty, `.` or `..`, or longer than Linux takes.

use super::error::ApplyError;
use crate::layer::archive::PATH_BYTES_MAX;
use std::ffi::OsStr;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;

/// `NAME_MAX`
const COMPONENT_BYTES_MAX: usize = 255;
/// A descriptor is held for each directory above the current name.
const DEPTH_MAX: usize = 256;

/// The components of a name; none for the root.
#[derive(Debug)]
pub struct Components<'a>(Vec<&'a OsStr>);

impl<'a> Components<'a> {
    /// Strips what every tool strips: slashes at both ends and doubled, and `.` components.
    pub fn parse(path: &'a [u8]) -> Result<Self, ApplyError> {
        if path.len() as u64 > PATH_BYTES_MAX {
            return Err(ApplyError::NameTooLong { max: PATH_BYTES_MAX as usize });
        }
        let mut components = Vec::new();
        for component in path.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err(ApplyError::Escapes),
                long if long.len() > COMPONENT_BYTES_MAX => {
                    return Err(ApplyError::NameTooLong { max: COMPONENT_BYTES_MAX });
                }
                name => components.push(OsStr::from_bytes(name)),
            }
        }
        match components.len() <= DEPTH_MAX {
            true => Ok(Components(components)),
            false => Err(ApplyError::TooDeep { max: DEPTH_MAX }),
        }
    }
}

impl<'a> Deref for Components<'a> {
    type Target = [&'a OsStr];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// Whether a name is `.` or `..`.
pub fn is_dots(name: &OsStr) -> bool {
    name == "." || name == ".."
}
