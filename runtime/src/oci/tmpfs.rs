//! Filling a tmpfs, or an empty directory that is bound, with what it is going to hide (`tmpcopyup`).
//!
//! Invariant: both sides are descriptors, names are single components, and no link is followed.

use crate::error::{Doing, Result};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chmodat, chownat, fgetxattr, flistxattr, fsetxattr, linkat,
    mkdirat, mknodat, openat, readlinkat, statat, symlinkat,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// As deep as a name can be: 4096 bytes, two a component.
const DEPTH_MAX: usize = 2048;

const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Copies the tree below `from` into the empty directory `to`, with owners, modes, links and attributes.
pub fn copy_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let from =
        openat(from, ".", READ | OFlags::DIRECTORY, Mode::empty()).doing(|| "open the directory to copy up".into())?;
    let to = openat(to, ".", READ | OFlags::DIRECTORY, Mode::empty()).doing(|| "open the tmpfs to copy into".into())?;
    copy_directory(&from, &to, &mut HashMap::new(), DEPTH_MAX)
}

/// The same where `to` is empty, with the owner and mode of the directory itself; a directory that has something stays as it is.
pub fn fill_empty(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let doing = || "look into the directory to copy into".to_owned();
    let listed = openat(to, ".", READ | OFlags::DIRECTORY, Mode::empty()).doing(doing)?;
    for entry in Dir::read_from(&listed).doing(doing)? {
        let name = entry.doing(doing)?.file_name().to_owned();
        if name.as_c_str() != c"." && name.as_c_str() != c".." {
            return Ok(());
        }
    }
    copy_tree(from, to)?;
    let stat = statat(from, ".", AtFlags::empty()).doing(doing)?;
    let doing = || "give the copy its owner".to_owned();
    chownat(&listed, ".", Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)), AtFlags::empty())
        .doing(doing)?;
    chmodat(&listed, ".", Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty()).doing(doing)
}

/// The first copy of each file that has several names: the directory it lies in, and its name there.
type Links = HashMap<(u64, u64), (OwnedFd, Vec<u8>)>;

fn copy_directory(from: &OwnedFd, to: &OwnedFd, links: &mut Links, depth_left: usize) -> Result<()> {
    if depth_left == 0 {
        return Err(Errno::NAMETOOLONG).doing(|| "copy up a directory".into());
    }
    for entry in Dir::read_from(from).doing(|| "list the directory to copy up".into())? {
        let entry = entry.doing(|| "list the directory to copy up".into())?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let doing = || format!("copy up {}", name.to_string_lossy());
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW).doing(doing)?;
        let number = (stat.st_dev, stat.st_ino);
        if let Some((directory, first)) = links.get(&number) {
            linkat(directory, first.as_slice(), to, name, AtFlags::empty()).doing(doing)?;
            continue;
        }
        copy_entry(from, to, name, &stat, links, depth_left)?;
        if stat.st_nlink > 1 && FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            let directory = to.try_clone().doing(doing)?;
            links.insert(number, (directory, name.to_bytes().to_vec()));
        }
    }
    Ok(())
}

fn copy_entry(
    from: &OwnedFd,
    to: &OwnedFd,
    name: &CStr,
    stat: &Stat,
    links: &mut Links,
    depth_left: usize,
) -> Result<()> {
    let doing = || format!("copy up {}", name.to_string_lossy());
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            mkdirat(to, name, Mode::RWXU).doing(doing)?;
            let below = openat(from, name, READ | OFlags::DIRECTORY, Mode::empty()).doing(doing)?;
            let copy = openat(to, name, READ | OFlags::DIRECTORY, Mode::empty()).doing(doing)?;
            copy_directory(&below, &copy, links, depth_left - 1)?;
            copy_attributes(below.as_fd(), copy.as_fd()).doing(doing)?;
        }
        FileType::RegularFile => {
            let below = openat(from, name, READ, Mode::empty()).doing(doing)?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let copy = openat(to, name, flags, Mode::RUSR | Mode::WUSR).doing(doing)?;
            let (mut below, mut copy) = (std::fs::File::from(below), std::fs::File::from(copy));
            std::io::copy(&mut below, &mut copy).doing(doing)?;
            copy_attributes(below.as_fd(), copy.as_fd()).doing(doing)?;
        }
        FileType::Symlink => {
            let link = readlinkat(from, name, Vec::new()).doing(doing)?;
            symlinkat(&link, to, name).doing(doing)?;
            return chownat(to, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).doing(doing);
        }
        kind => mknodat(to, name, kind, mode, stat.st_rdev).doing(doing)?,
    }
    chownat(to, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).doing(doing)?;
    chmodat(to, name, mode, AtFlags::empty()).doing(doing)
}

/// Longest list of names, and longest value, as xattr(7) has them.
const ATTRIBUTE_BYTES_MAX: usize = 64 * 1024;

/// What the tmpfs does not keep (`user.` on old kernels, `trusted.` in a user namespace) is left out, as cp(1) does.
fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut names = vec![0_u8; ATTRIBUTE_BYTES_MAX];
    let length = match flistxattr(from, &mut names[..]) {
        Err(Errno::NOTSUP) => return Ok(()),
        outcome => outcome?,
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0_u8; ATTRIBUTE_BYTES_MAX];
        let length = fgetxattr(from, name, &mut value[..])?;
        match fsetxattr(to, name, &value[..length], rustix::fs::XattrFlags::empty()) {
            Err(Errno::NOTSUP | Errno::PERM) => {}
            outcome => outcome?,
        }
    }
    Ok(())
}
