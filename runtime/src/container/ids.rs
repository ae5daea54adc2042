//! Who is who in a container: the host's ids for root, a range of subordinate ids or the one own id for a user.
//!
//! Owns the choice, and the files subuid(5) and subgid(5). Must not know mounts. Invariant: a range is used only when both files give one and
//! the programs that map it are there.

use super::error::{Error, Result};
use crate::oci::id_maps::IdMaps;
use crate::oci::log;
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;

/// In the directory of all containers, once the user has been given the notice.
const TOLD: &str = "one-id-told";

/// The ids of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ids {
    /// Those of the host: no user namespace.
    Host,
    /// The user himself, who is root inside; nobody else exists there.
    One(IdMaps),
    /// The user as root, and a range of ids that the administrator gave him for the others.
    Range(IdMaps),
}

impl Ids {
    /// What this process can have.
    pub fn choose() -> Ids {
        if rustix::process::geteuid().is_root() {
            return Ids::Host;
        }
        let programs = ["newuidmap", "newgidmap"].into_iter().find(|program| !is_in_path(program));
        let uid = rustix::process::getuid().as_raw();
        let range = match programs {
            Some(program) => Err(format!("{program}, of the package uidmap, is not installed")),
            None => range("/etc/subuid", uid).and_then(|uids| Ok((uids, range("/etc/subgid", uid)?))),
        };
        match range {
            Ok((uids, gids)) => Ids::Range(IdMaps::new(
                Some(&[own(uid), above(uids)]),
                Some(&[own(rustix::process::getgid().as_raw()), above(gids)]),
            )),
            Err(reason) => {
                log::debug(&format!("one id only: {reason}"));
                Ids::one()
            }
        }
    }

    /// The ids of a user who has no range.
    pub fn one() -> Ids {
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        Ids::One(IdMaps::new(Some(&[own(uid)]), Some(&[own(gid)])))
    }

    /// What a user should know who might expect more.
    pub fn notice(&self) -> Option<&'static str> {
        match self {
            Ids::One(_) => Some(
                "no range of ids for this user in /etc/subuid and /etc/subgid: containers work, with root as their only user; every file shows as \
                 root's, and changing owners has no effect. For more users: install uidmap, and as root run \
                 usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER",
            ),
            Ids::Host | Ids::Range(_) => None,
        }
    }

    /// The notice, if nobody has been given it yet for the containers in this directory, which remembers that.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn first_notice(&self, containers: &Path) -> Result<Option<&'static str>> {
        let Some(notice) = self.notice() else { return Ok(None) };
        let told = containers.join(TOLD);
        match OpenOptions::new().write(true).create_new(true).open(&told) {
            Ok(_) => Ok(Some(notice)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(Error::io("create", &told)(error)),
        }
    }
}

/// A range of the host, as many ids as the container's above 0.
struct Range {
    first: u32,
    count: u32,
}

fn own(id: u32) -> LinuxIdMapping {
    mapping(0, id, 1)
}

fn above(range: Range) -> LinuxIdMapping {
    mapping(1, range.first, range.count)
}

fn mapping(inside: u32, outside: u32, count: u32) -> LinuxIdMapping {
    let built = LinuxIdMappingBuilder::default().container_id(inside).host_id(outside).size(count).build();
    // Every field has a value.
    built.unwrap_or_default()
}

/// The first range of this user, by name or number. Source: subuid(5).
fn range(file: &str, uid: u32) -> std::result::Result<Range, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let name = nix::unistd::User::from_uid(uid.into()).ok().flatten().map(|user| user.name);
    parse(&text, uid, name.as_deref()).ok_or_else(|| format!("{file} has no range for user {uid}"))
}

fn parse(text: &str, uid: u32, name: Option<&str>) -> Option<Range> {
    text.lines().find_map(|line| {
        let words: Vec<&str> = line.trim().split(':').collect();
        let [owner, first, count] = words.as_slice() else { return None };
        let is_own = Some(*owner) == name || owner.parse() == Ok(uid);
        let (first, count) = (first.parse().ok()?, count.parse::<u32>().ok()?);
        (is_own && count > 0).then_some(Range { first, count })
    })
}

fn is_in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| Path::new(&dir).join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_found_by_name_and_by_number() {
        let text = "# ranges\nroot:1:2\nalice:100000:65536\n1001:300000:10\nalice:9:9\n";
        let found = |uid, name| parse(text, uid, name).map(|range| (range.first, range.count));
        assert_eq!(found(1000, Some("alice")), Some((100_000, 65_536)));
        assert_eq!(found(1001, None), Some((300_000, 10)));
        assert_eq!(found(1002, Some("bob")), None);
    }
}
