//! Compiled seccomp filters, kept: compiling one takes longer than everything else that making a container takes.
//!
//! Owns the directory. Must not know what a filter says. Invariants: a file counts only if nobody but this user could have written it and it is whole;
//! whatever is wrong with the directory or a file costs the time of compiling, and nothing else. Whoever is this user could load any filter anyway.
//!
//! ```text
//! DIR/        mode 0700
//! DIR/KEY     KEY: the SHA-256 of all that decides on the filter, in hexadecimal digits. SHA-256 of the rest, KEY, instructions of 8 bytes each
//! ```

use super::{log, state};
use lamina_snapshotter::digest::Digest;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Names the directory; empty for none.
const VARIABLE: &str = "LAMINA_FILTERS";
const NAME: &str = "lamina-filters";
/// Filters that are kept at most; then all go, and those in use come back.
const FILTERS_MAX: usize = 64;
/// Hexadecimal digits of a SHA-256.
const DIGEST_BYTES: usize = 64;
const HEAD_BYTES: usize = 2 * DIGEST_BYTES;
/// Bytes of one instruction.
pub const INSTRUCTION_BYTES: usize = 8;
/// As many instructions as the kernel takes (`BPF_MAXINSNS`).
const BYTES_MAX: usize = HEAD_BYTES + 4096 * INSTRUCTION_BYTES;
/// Permissions that would let somebody else write.
const OTHERS_WRITE: u32 = 0o022;

/// The directory, open and known to be ours alone.
#[derive(Debug)]
pub struct FilterCache(OwnedFd);

/// Where filters are kept: of the host's root in /run, of a user in his runtime directory, which are empty after a restart of the machine.
fn place() -> Option<PathBuf> {
    let given = |name: &str| std::env::var_os(name).map(PathBuf::from);
    match (given(VARIABLE), given("XDG_RUNTIME_DIR").filter(|path| !path.as_os_str().is_empty())) {
        (Some(path), _) => Some(path).filter(|path| !path.as_os_str().is_empty()),
        (None, Some(runtime)) if state::rootless() => Some(runtime.join(NAME)),
        (None, None) if state::rootless() => None,
        (None, _) => Some(Path::new("/run").join(NAME)),
    }
}

impl FilterCache {
    /// The one of this user, made where it is missing. None where there is no place for it, or somebody else could write to it.
    pub fn of_user() -> Option<FilterCache> {
        let place = place()?;
        FilterCache::open(&place).unwrap_or_else(|error| {
            log::debug(&format!("{}: no filters are kept there: {error}", place.display()));
            None
        })
    }

    pub(super) fn open(place: &Path) -> io::Result<Option<FilterCache>> {
        match mkdirat(CWD, place, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = openat(CWD, place, flags, Mode::empty())?;
        match is_ours(&fstat(&dir)?, FileType::Directory) {
            true => Ok(Some(FilterCache(dir))),
            false => Err(io::Error::other("somebody else owns the directory or may write to it")),
        }
    }

    /// The instructions that were kept under a key.
    pub fn find(&self, key: &Digest) -> Option<Vec<u8>> {
        self.read(key).unwrap_or_else(|error| {
            log::debug(&format!("the kept filter {} does not count: {error}", key.hex()));
            None
        })
    }

    fn read(&self, key: &Digest) -> io::Result<Option<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.0, key.hex(), flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened?,
        };
        let found = fstat(&file)?;
        let size = usize::try_from(found.st_size).unwrap_or(usize::MAX);
        if !is_ours(&found, FileType::RegularFile) || found.st_nlink != 1 {
            return Err(io::Error::other("somebody else owns it or may write to it"));
        }
        if size <= HEAD_BYTES || size > BYTES_MAX || !(size - HEAD_BYTES).is_multiple_of(INSTRUCTION_BYTES) {
            return Err(io::Error::other("its size is none of a filter"));
        }
        let mut bytes = vec![0; size];
        File::from(file).read_exact(&mut bytes)?;
        let (digest, rest) = bytes.split_at(DIGEST_BYTES);
        if digest != Digest::of(rest).hex().as_bytes() || !rest.starts_with(key.hex().as_bytes()) {
            return Err(io::Error::other("its digest is another"));
        }
        Ok(Some(bytes.split_off(HEAD_BYTES)))
    }

    /// Keeps instructions under a key.
    pub fn keep(&self, key: &Digest, instructions: &[u8]) {
        if let Err(error) = self.write(key, instructions) {
            log::debug(&format!("the filter {} is not kept: {error}", key.hex()));
        }
    }

    fn write(&self, key: &Digest, instructions: &[u8]) -> io::Result<()> {
        self.make_room()?;
        let rest = [key.hex().as_bytes(), instructions].concat();
        let draft = format!("draft.{}", std::process::id());
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.0, &draft, flags, Mode::RUSR | Mode::WUSR)?);
        // After a crash of the machine it may be cut off; its digest tells.
        let written = file.write_all(&[Digest::of(&rest).hex().as_bytes(), &rest].concat());
        written.and_then(|()| Ok(renameat(&self.0, &draft, &self.0, key.hex())?))
    }

    fn make_room(&self) -> io::Result<()> {
        let names = Dir::read_from(&self.0)?.map(|entry| entry.map(|entry| entry.file_name().to_owned()));
        let names: Vec<_> = names.collect::<rustix::io::Result<_>>()?;
        if names.len() < FILTERS_MAX {
            return Ok(());
        }
        for name in names.iter().filter(|name| !matches!(name.to_bytes(), b"." | b"..")) {
            match unlinkat(&self.0, name, AtFlags::empty()) {
                // Somebody else makes room too.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

fn is_ours(found: &Stat, kind: FileType) -> bool {
    let owner = rustix::process::geteuid().as_raw();
    FileType::from_raw_mode(found.st_mode) == kind && found.st_uid == owner && found.st_mode & OTHERS_WRITE == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    /// A cache with one filter in it, its key and its file.
    fn kept() -> (tempfile::TempDir, FilterCache, Digest, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let cache = FilterCache::open(&home.path().join("filters")).unwrap().unwrap();
        let key = Digest::of(b"a profile");
        assert_eq!(cache.find(&key), None);
        cache.keep(&key, b"12345678abcdefgh");
        let path = home.path().join("filters").join(key.hex());
        (home, cache, key, path)
    }

    #[test]
    fn what_was_kept_is_found_under_its_key_alone() {
        let (home, cache, key, path) = kept();
        assert_eq!(cache.find(&key).unwrap(), b"12345678abcdefgh");
        assert_eq!(cache.find(&Digest::of(b"another profile")), None);
        let other = Digest::of(b"another profile");
        fs::copy(&path, home.path().join("filters").join(other.hex())).unwrap();
        assert_eq!(cache.find(&other), None, "under another name it is another filter");
        assert_eq!(fs::read_dir(home.path().join("filters")).unwrap().count(), 2, "no draft is left");
    }

    #[test]
    fn a_file_that_is_not_whole_does_not_count() {
        let (_home, cache, key, path) = kept();
        let whole = fs::read(&path).unwrap();
        for length in [0, 1, 128, 136, whole.len() - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(cache.find(&key), None, "{length}");
        }
        let mut other = whole.clone();
        *other.last_mut().unwrap() ^= 1;
        fs::write(&path, &other).unwrap();
        assert_eq!(cache.find(&key), None, "one bit");
        fs::write(&path, [&whole[..], &[0; 4096 * 8]].concat()).unwrap();
        assert_eq!(cache.find(&key), None, "longer than any filter");
        cache.keep(&key, b"12345678abcdefgh");
        assert!(cache.find(&key).is_some(), "it is replaced");
    }

    #[test]
    fn a_file_that_others_could_write_does_not_count() {
        let (home, cache, key, path) = kept();
        for mode in [0o620, 0o602] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(cache.find(&key), None, "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let second = home.path().join("second");
        fs::hard_link(&path, &second).unwrap();
        assert_eq!(cache.find(&key), None, "it has a second name, where others may be");
        fs::remove_file(&path).unwrap();
        symlink(&second, &path).unwrap();
        assert_eq!(cache.find(&key), None, "a link");
        if rustix::process::geteuid().is_root() {
            fs::rename(&second, &path).unwrap();
            assert!(cache.find(&key).is_some());
            std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
            assert_eq!(cache.find(&key), None, "of another owner");
        }
    }

    #[test]
    fn a_directory_that_others_could_write_is_not_used() {
        let (home, ..) = kept();
        let dir = home.path().join("filters");
        for mode in [0o720, 0o1777] {
            fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
            assert!(FilterCache::open(&dir).is_err(), "{mode:o}");
        }
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        symlink(&dir, home.path().join("link")).unwrap();
        assert!(FilterCache::open(&home.path().join("link")).is_err());
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&dir, Some(12_345), None).unwrap();
            assert!(FilterCache::open(&dir).is_err(), "of another owner");
        }
    }

    #[test]
    fn a_full_directory_is_emptied() {
        let (home, cache, key, _) = kept();
        for number in 0..3 * FILTERS_MAX {
            cache.keep(&Digest::of(&number.to_le_bytes()), b"12345678");
        }
        assert!(fs::read_dir(home.path().join("filters")).unwrap().count() <= FILTERS_MAX);
        assert_eq!(cache.find(&key), None);
    }
}
