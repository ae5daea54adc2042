//! Where a container's cgroup lies: `linux.cgroupsPath` in its forms.

use super::layout::{Hierarchy, relative};
use crate::error::{Error, Result};
use crate::oci::resolve::lexical;
use std::path::{Path, PathBuf};

/// A place in every hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CgroupPath {
    /// Below the mount points.
    Absolute(PathBuf),
    /// Below the cgroup of the runtime itself.
    Relative(PathBuf),
}

impl CgroupPath {
    /// The place that config.json names, else one of our own. With `systemd` the path has systemd's form `SLICE:PREFIX:NAME`; the
    /// directories get the names that systemd would give them, but no unit is registered.
    pub fn parse(path: Option<&Path>, id: &str, systemd: bool, rootless: bool) -> Result<Self> {
        let own = PathBuf::from(format!("lamina-oci-{id}"));
        match path.filter(|path| !path.as_os_str().is_empty()) {
            None if rootless => Ok(CgroupPath::Relative(own)),
            None => Ok(CgroupPath::Absolute(own)),
            Some(path) if systemd => scope(path, id, rootless).map(CgroupPath::Absolute),
            Some(path) if path.is_absolute() => Ok(CgroupPath::Absolute(relative(&lexical(path)).to_owned())),
            Some(path) => Ok(CgroupPath::Relative(relative(&lexical(path)).to_owned())),
        }
    }

    /// The directory in one hierarchy.
    pub fn within(&self, hierarchy: &Hierarchy) -> PathBuf {
        match self {
            CgroupPath::Absolute(path) => hierarchy.point.join(path),
            CgroupPath::Relative(path) => hierarchy.own_directory().join(path),
        }
    }
}

/// `machine-a.slice:libpod:x` lies in machine.slice/machine-a.slice/libpod-x.scope. Source: systemd.slice(5).
fn scope(path: &Path, id: &str, rootless: bool) -> Result<PathBuf> {
    let text = path.to_string_lossy();
    let parts: Vec<&str> = text.split(':').collect();
    let [slice, prefix, name] = parts.as_slice() else {
        return Err(Error::invalid(
            "linux.cgroupsPath",
            format!("{text:?} is not of the form slice:prefix:name, which --systemd-cgroup expects"),
        ));
    };
    let slice = match (*slice, rootless) {
        ("", true) => "user.slice",
        ("", false) => "system.slice",
        (slice, _) => slice,
    };
    let Some(stem) = slice.strip_suffix(".slice").filter(|stem| !stem.contains('/')) else {
        return Err(Error::invalid("linux.cgroupsPath", format!("{slice:?} is not the name of a slice")));
    };
    let mut directory = PathBuf::new();
    let mut so_far = String::new();
    for word in stem.split('-').filter(|word| !word.is_empty()) {
        so_far = if so_far.is_empty() { word.to_owned() } else { format!("{so_far}-{word}") };
        directory.push(format!("{so_far}.slice"));
    }
    let name = if name.is_empty() { id } else { name };
    let unit = match (name.ends_with(".slice"), *prefix) {
        (true, _) => name.to_owned(),
        (false, "") => format!("{name}.scope"),
        (false, prefix) => format!("{prefix}-{name}.scope"),
    };
    Ok(relative(&lexical(&directory.join(unit))).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_lie_in_the_slices_that_their_names_begin_with() {
        let parse = |path| CgroupPath::parse(Some(Path::new(path)), "x", true, false);
        let expected = CgroupPath::Absolute("machine.slice/machine-a.slice/libpod-y.scope".into());
        assert_eq!(parse("machine-a.slice:libpod:y").unwrap(), expected);
        assert_eq!(parse(":run:").unwrap(), CgroupPath::Absolute("system.slice/run-x.scope".into()));
        assert!(parse("/plain/path").is_err());
    }

    #[test]
    fn a_path_cannot_lead_above_its_hierarchy() {
        let parsed = CgroupPath::parse(Some(Path::new("/../../etc")), "x", false, false).unwrap();
        assert_eq!(parsed, CgroupPath::Absolute("etc".into()));
    }
}
