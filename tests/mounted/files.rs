//! The calls on files beyond read and write: allocation, holes, copies, locks, flags, privileges, statfs.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{FallocateFlags, FlockOperation, SeekFrom};
use support::{LaminaMount, Layers, file, machine, needs, sparse};

fn open_rw(path: impl AsRef<Path>) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

const BLOCK: u64 = 4096;

#[test]
fn fallocate_punches_zeroes_and_extends() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("f", vec![b'x'; 10 * BLOCK as usize])]]);
    let mut mount = LaminaMount::new(&layers);
    let open = open_rw(mount.join("f"));
    rustix::fs::fallocate(&open, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, BLOCK, BLOCK).unwrap();
    rustix::fs::fallocate(&open, FallocateFlags::ZERO_RANGE, 4 * BLOCK, BLOCK).unwrap();
    rustix::fs::fallocate(&open, FallocateFlags::empty(), 0, 12 * BLOCK).unwrap();
    rustix::fs::fallocate(&open, FallocateFlags::KEEP_SIZE, 0, 20 * BLOCK).unwrap();
    drop(open);
    let mut expected = vec![b'x'; 10 * BLOCK as usize];
    expected[BLOCK as usize..2 * BLOCK as usize].fill(0);
    expected[4 * BLOCK as usize..5 * BLOCK as usize].fill(0);
    expected.resize(12 * BLOCK as usize, 0);
    assert_eq!(fs::read(mount.join("f")).unwrap(), expected);
    mount.remount();
    assert_eq!(fs::read(mount.join("f")).unwrap(), expected);
    layers.assert_lowers_untouched();
}

#[test]
fn seek_finds_data_and_holes() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[sparse("f", 1 << 20, &[(64 << 10, &[b'd'; 4096])])]]);
    let mount = LaminaMount::new(&layers);
    let check = |open: &File| {
        assert_eq!(rustix::fs::seek(open, SeekFrom::Data(0)).unwrap(), 64 << 10);
        assert_eq!(rustix::fs::seek(open, SeekFrom::Hole(64 << 10)).unwrap(), (64 << 10) + 4096);
        assert_eq!(rustix::fs::seek(open, SeekFrom::Data(128 << 10)), Err(rustix::io::Errno::NXIO));
    };
    let open = open_rw(mount.join("f"));
    check(&open);
    open.write_all_at(b"d", 64 << 10).unwrap();
    open.sync_all().unwrap();
    check(&open);
}

#[test]
fn copy_file_range_copies_between_lower_and_upper() {
    needs!(machine::mounts());
    let content: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
    let layers = Layers::new(&[&[file("from", &content)]]);
    let mount = LaminaMount::new(&layers);
    let (from, to) = (File::open(mount.join("from")).unwrap(), File::create(mount.join("to")).unwrap());
    let (mut read_at, mut write_at) = (1000_u64, 7_u64);
    while (read_at as usize) < content.len() {
        assert_ne!(
            rustix::fs::copy_file_range(&from, Some(&mut read_at), &to, Some(&mut write_at), 1 << 20).unwrap(),
            0
        );
    }
    assert_eq!(fs::read(mount.join("to")).unwrap(), [&[0; 7], &content[1000..]].concat());
    layers.assert_lowers_untouched();
}

#[test]
fn flock_of_one_process_blocks_another() {
    needs!(machine::mounts(), machine::program("flock"));
    let layers = Layers::new(&[&[file("f", "")]]);
    let mount = LaminaMount::new(&layers);
    let path = mount.join("f");
    let other = |mode: &str| machine::output("flock", &["-n", mode, path.to_str().unwrap(), "true"]).status.success();
    let open = open_rw(&path);
    rustix::fs::flock(&open, FlockOperation::NonBlockingLockExclusive).unwrap();
    assert!(!other("-s") && !other("-x"));
    rustix::fs::flock(&open, FlockOperation::NonBlockingLockShared).unwrap();
    assert!(other("-s") && !other("-x"));
    // A copy-up in between must not lose the lock.
    open.write_all_at(b"x", 0).unwrap();
    assert!(!other("-x"));
    drop(open);
    assert!(other("-x"));
}

#[test]
fn posix_locks_exclude_by_range() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("f", "0123456789")]]);
    let mount = LaminaMount::new(&layers);
    // An open file description lock and a classic one have different owners: two processes in one.
    let (first, second) = (open_rw(mount.join("f")), open_rw(mount.join("f")));
    let lock = |start, length| libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: start,
        l_len: length,
        l_pid: 0,
    };
    fcntl(&first, FcntlArg::F_OFD_SETLK(&lock(0, 5))).unwrap();
    first.write_all_at(b"x", 0).unwrap();
    let refused = fcntl(&second, FcntlArg::F_SETLK(&lock(4, 2))).unwrap_err();
    assert!(matches!(refused, nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES), "{refused}");
    fcntl(&second, FcntlArg::F_SETLK(&lock(5, 5))).unwrap();
    drop(first);
    fcntl(&second, FcntlArg::F_SETLK(&lock(0, 10))).unwrap();
}

#[test]
fn inode_flags_are_read_and_set() {
    needs!(machine::mounts(), machine::program("chattr"), machine::program("lsattr"));
    let layers = Layers::new(&[&[file("f", "x")]]);
    let mut mount = LaminaMount::new(&layers);
    let path = mount.join("f");
    let path = path.to_str().unwrap();
    let flags = || machine::run("lsattr", &[path]).split_whitespace().next().unwrap().to_owned();
    assert!(!flags().contains('d'));
    machine::run("chattr", &["+d", path]);
    assert!(flags().contains('d'), "{}", flags());
    mount.remount();
    assert!(flags().contains('d'), "after a remount: {}", flags());
    layers.assert_lowers_untouched();
}

/// The kernel takes setuid, setgid and capabilities away when an unprivileged user writes, truncates, or anyone changes the owner.
#[test]
fn privileges_are_dropped_by_write_truncate_and_chown() {
    needs!(machine::mounts(), machine::root(), machine::program("setpriv"));
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let names = ["written", "truncated", "chowned"];
    let entry = |name: &str| file(name, "content").owner(0, 0).mode(0o6777).xattr("security.capability", capability);
    let layers = Layers::new(&[&names.map(entry)]);
    let mount = LaminaMount::new(&layers);
    for (name, script) in [("written", "echo >>"), ("truncated", "truncate -s 2")] {
        let output = machine::shell_as(1000, &format!("{script} '{}'", mount.join(name).display()));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    std::os::unix::fs::chown(mount.join("chowned"), Some(0), Some(5)).unwrap();
    for name in names {
        let mode = mount.join(name).metadata().unwrap().mode() & 0o7777;
        assert_eq!(mode, 0o777, "{name} is {mode:o}");
        assert_eq!(support::literal::xattr(&mount.join(name), "security.capability"), None, "{name}");
    }
    layers.assert_lowers_untouched();
}

#[test]
fn root_write_keeps_setuid_but_not_capabilities() {
    needs!(machine::mounts(), machine::root());
    let layers = Layers::new(&[&[file("f", "content").mode(0o4755)]]);
    let mount = LaminaMount::new(&layers);
    OpenOptions::new().append(true).open(mount.join("f")).unwrap().write_all(b"!").unwrap();
    assert_eq!(
        mount.join("f").metadata().unwrap().mode() & 0o7777,
        0o4755,
        "as any filesystem, for a caller with CAP_FSETID"
    );
}

#[test]
fn permissions_are_enforced_for_others() {
    needs!(machine::mounts(), machine::owners(), machine::program("setpriv"));
    let layers = Layers::new(&[&[file("secret", "x").mode(0o600), file("open", "y").mode(0o644)]]);
    let mount = LaminaMount::new(&layers);
    let try_as_user =
        |script: &str| machine::shell_as(1000, &format!("cd '{}'; {script}", mount.path().display())).status.success();
    assert!(try_as_user("cat open"));
    assert!(!try_as_user("cat secret"));
    assert!(!try_as_user("echo >> open"));
    assert!(!try_as_user("rm -f open && test ! -e open"));
    fs::set_permissions(mount.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(try_as_user("rm -f open && test ! -e open"));
}

#[test]
fn statfs_says_fuse() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[]]);
    let mount = LaminaMount::new(&layers);
    let stat = rustix::fs::statfs(mount.path()).unwrap();
    let upper = rustix::fs::statfs(&layers.upper).unwrap();
    assert_eq!(stat.f_type, 0x6573_5546, "what containers-storage checks");
    assert_eq!((stat.f_blocks, stat.f_bsize), (upper.f_blocks, upper.f_bsize), "the upper's space is ours");
}

/// Who holds the lock of an unlinked file, or the last descriptor of a replaced one, reads its own file to the end.
#[test]
fn large_files_are_read_and_written_whole() {
    needs!(machine::mounts());
    let content: Vec<u8> = (0..9_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let layers = Layers::new(&[&[file("f", &content)]]);
    let mut mount = LaminaMount::new(&layers);
    assert!(fs::read(mount.join("f")).unwrap() == content);
    fs::write(mount.join("g"), &content).unwrap();
    open_rw(mount.join("f")).write_all_at(b"in the middle", 20_000_001).unwrap();
    mount.remount();
    assert!(fs::read(mount.join("g")).unwrap() == content);
    let mut expected = content;
    expected[20_000_001..20_000_014].copy_from_slice(b"in the middle");
    assert!(fs::read(mount.join("f")).unwrap() == expected);
    layers.assert_lowers_untouched();
}
