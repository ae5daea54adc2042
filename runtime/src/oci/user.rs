//! Users and groups by name, as the container's own /etc/passwd and /etc/group have them.
//!
//! Owns their syntax, see passwd(5) and group(5), and docker's `USER[:GROUP]`. To be asked when the container's root is `/`: the host's files are
//! never read. Invariant: an id that the user namespace does not have is an error here, in a sentence.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd};

/// What is read of such a file: an image must not fill the memory.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Somebody, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// The user.
    pub uid: u32,
    /// The first group.
    pub gid: u32,
    /// The other groups, in ascending order.
    pub groups: Vec<u32>,
    /// The home directory, where the user has an entry.
    pub home: Option<String>,
}

/// Finds `USER[:GROUP]`, names or numbers, in the files of this root directory; nothing means root. `proc` is a procfs.
pub fn find(wanted: &str, proc: BorrowedFd<'_>) -> Result<Account> {
    let account = look_up(wanted, &read("/etc/passwd"), &read("/etc/group"))?;
    for (file, id, what) in [("self/uid_map", account.uid, "user"), ("self/gid_map", account.gid, "group")] {
        if !is_mapped(&read_below(proc, file), id) {
            return Err(Error::invalid(
                format!("{what} {id}"),
                "does not exist in this container, whose user namespace has fewer ids; give the user who starts it a larger range in /etc/subuid \
                 and /etc/subgid (see subuid(5)), or run as root with --user 0",
            ));
        }
    }
    Ok(account)
}

fn read(path: &str) -> String {
    // An image without the file knows no names.
    File::open(path).map(text).unwrap_or_default()
}

fn read_below(proc: BorrowedFd<'_>, name: &str) -> String {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::openat(proc.as_fd(), name, flags, rustix::fs::Mode::empty());
    file.map(|file| text(file.into())).unwrap_or_default()
}

fn text(file: File) -> String {
    let mut bytes = Vec::new();
    // What cannot be read names nobody.
    if !file.metadata().is_ok_and(|found| found.is_file()) || file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).is_err()
    {
        return String::new();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn is_mapped(map: &str, id: u32) -> bool {
    let holds = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().filter_map(|word| word.parse::<u64>().ok());
        let (Some(first), Some(_), Some(count)) = (numbers.next(), numbers.next(), numbers.next()) else {
            return false;
        };
        (first..first + count).contains(&u64::from(id))
    };
    map.lines().any(holds)
}

fn look_up(wanted: &str, passwd: &str, group: &str) -> Result<Account> {
    let (user, first_group) = wanted.split_once(':').map_or((wanted, None), |(user, group)| (user, Some(group)));
    let user = if user.is_empty() { "0" } else { user };
    let entry = passwd.lines().map(fields).find(|entry| entry.len() >= 4 && (entry[0] == user || entry[2] == user));
    let number = |text: &str| text.parse::<u32>().ok();
    let mut account = match (&entry, number(user)) {
        (Some(entry), _) => {
            let ids = number(entry[2]).zip(number(entry[3]));
            let (uid, gid) =
                ids.ok_or_else(|| Error::invalid("/etc/passwd", format!("the entry of {user} has no ids")))?;
            let home = entry.get(5).filter(|home| !home.is_empty()).map(|home| (*home).to_owned());
            Account { uid, gid, home, ..Account::default() }
        }
        (None, Some(uid)) => Account { uid, ..Account::default() },
        (None, None) => {
            return Err(Error::invalid(
                format!("unable to find user {user}"),
                "no matching entries in passwd file of the image; give a number, or a user that it has",
            ));
        }
    };
    match first_group.filter(|group| !group.is_empty()) {
        Some(name) => {
            let found =
                group.lines().map(fields).find(|entry| entry.len() >= 3 && (entry[0] == name || entry[2] == name));
            let gid = found.and_then(|entry| number(entry[2])).or_else(|| number(name));
            account.gid = gid.ok_or_else(|| {
                Error::invalid(
                    format!("unable to find group {name}"),
                    "no matching entries in group file of the image; give a number, or a group that it has",
                )
            })?;
        }
        None => {
            let name = entry.as_ref().map_or(user, |entry| entry[0]);
            let member =
                |entry: &Vec<&str>| entry.get(3).is_some_and(|members| members.split(',').any(|one| one == name));
            let groups = group.lines().map(fields).filter(member).filter_map(|entry| number(entry[2]));
            account.groups = groups.filter(|gid| *gid != account.gid).collect();
            account.groups.sort_unstable();
            account.groups.dedup();
        }
    }
    Ok(account)
}

fn fields(line: &str) -> Vec<&str> {
    line.trim_end().split(':').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/var/www:/bin/sh\nbroken:x\n";
    const GROUP: &str = "root:x:0:\nwww:x:33:\nadm:x:4:www,other\nssl:x:7:www\n";

    fn ids(wanted: &str) -> Option<(u32, u32, Vec<u32>)> {
        look_up(wanted, PASSWD, GROUP).ok().map(|account| (account.uid, account.gid, account.groups))
    }

    #[test]
    fn names_and_numbers_mean_what_the_image_says() {
        assert_eq!(ids(""), Some((0, 0, vec![])));
        assert_eq!(ids("www"), Some((33, 33, vec![4, 7])));
        assert_eq!(ids("33"), Some((33, 33, vec![4, 7])));
        assert_eq!(ids("1000"), Some((1000, 0, vec![])));
        assert_eq!(ids("www:adm"), Some((33, 4, vec![])));
        assert_eq!(ids("7:8"), Some((7, 8, vec![])));
        assert_eq!(ids(":adm"), Some((0, 4, vec![])));
        assert_eq!(look_up("www", PASSWD, GROUP).unwrap().home.as_deref(), Some("/var/www"));
    }

    #[test]
    fn whoever_is_not_there_is_named() {
        for (wanted, named) in [("nobody", "user nobody"), ("www:none", "group none"), ("broken", "user broken")] {
            let said = look_up(wanted, PASSWD, GROUP).unwrap_err().to_string();
            assert!(said.contains(named) && said.contains("no matching entries"), "{said}");
        }
    }

    #[test]
    fn an_id_is_looked_for_in_every_range() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        for (id, mapped) in [(0, true), (65_536, true), (65_537, false)] {
            assert_eq!(is_mapped(map, id), mapped, "{id}");
        }
    }
}
