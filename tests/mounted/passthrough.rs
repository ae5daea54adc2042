//! `io=passthrough`: the kernel reaches upper files by itself, lower ones of a writable mount through the server. Whatever the order of
//! opens, copy-ups and closes: one content, no EIO, nothing written below.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, SeekFrom as Sparse, StatxFlags, Timespec, Timestamps};
use support::lamina::Lamina;
use support::sys::SharedMap;
use support::{KernelOverlay, LaminaMount, Layers, dir, file, machine, needs};

use super::requests::Requests;

fn passing(layers: &Layers) -> LaminaMount {
    Lamina::on(layers).option("io=passthrough").mount()
}

fn count(mount: &LaminaMount, opcode: &str) -> u64 {
    Requests::so_far(mount).count(opcode)
}

fn open_rw(path: impl AsRef<Path>) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn read_whole(file: &File) -> Vec<u8> {
    let mut content = vec![0; 1 << 20];
    let length = file.read_at(&mut content, 0).unwrap();
    content.truncate(length);
    content
}

#[test]
fn upper_file_is_read_and_written_by_the_kernel_itself() {
    needs!(machine::passthrough());
    let layers = Layers::new(&[&[]]);
    let mount = passing(&layers);
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut new = File::create(mount.join("f")).unwrap();
    new.write_all(&content).unwrap();
    // One page cache: what is not yet on any disk is in the backing file.
    assert!(fs::read(layers.upper.join("f")).unwrap() == content);
    assert!(fs::read(mount.join("f")).unwrap() == content);
    let (ours, backing) = (open_rw(mount.join("f")), File::open(layers.upper.join("f")).unwrap());
    let (mapping, below) = (SharedMap::new(&ours, 8192, true).unwrap(), SharedMap::new(&backing, 8192, false).unwrap());
    mapping.store(4094, b"across").unwrap();
    assert_eq!(&below.bytes()[4094..4100], b"across");
    assert_eq!((count(&mount, "READ"), count(&mount, "WRITE")), (0, 0));
}

#[test]
fn read_only_mount_passes_every_file_and_no_writer() {
    needs!(machine::passthrough());
    let layers = Layers::new(&[&[file("a", "top")], &[file("a", "hidden"), file("b", vec![b'b'; 100_000])]]);
    let live = Lamina::read_only(&layers).option("io=passthrough").mount();
    assert_eq!(fs::read(live.join("a")).unwrap(), b"top");
    assert_eq!(fs::read(live.join("b")).unwrap(), vec![b'b'; 100_000]);
    assert_eq!(count(&live, "READ"), 0);
    // The kernel lets root lift its own veto: then it is for the server to say no.
    mount(None::<&str>, live.path(), None::<&str>, MsFlags::MS_REMOUNT, None::<&str>).unwrap();
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_ACCMODE] {
        let refused = rustix::fs::open(live.join("b"), OFlags::from_bits_retain(flags as u32), Mode::empty());
        assert_eq!(refused.unwrap_err(), rustix::io::Errno::ROFS, "{flags}");
    }
    let reader = File::open(live.join("b")).unwrap();
    assert_eq!(SharedMap::new(&reader, 4096, true).err().and_then(|error| error.raw_os_error()), Some(libc::EACCES));
    assert!(fs::write(live.join("b"), "x").is_err() && fs::write(live.join("c"), "x").is_err());
    drop(reader);
    layers.assert_lowers_untouched();
}

/// The descriptor that is open decides: as long as one reads through the server, all do. After the last, none does.
#[test]
fn reader_opened_before_a_copy_up_sees_the_data_after_it() {
    needs!(machine::passthrough());
    let layers = Layers::new(&[&[file("f", vec![b'o'; 10_000])]]);
    let mut mount = passing(&layers);
    let old = File::open(mount.join("f")).unwrap();
    let mapping = SharedMap::new(&old, 8192, false).unwrap();
    assert_eq!(read_whole(&old), vec![b'o'; 10_000]);
    let writer = open_rw(mount.join("f"));
    writer.write_all_at(b"new", 4095).unwrap();
    let new = File::open(mount.join("f")).unwrap();
    let expected = [vec![b'o'; 4095], b"new".to_vec(), vec![b'o'; 5902]].concat();
    for reader in [&old, &writer, &new] {
        assert_eq!(read_whole(reader), expected);
    }
    assert_eq!(mapping.bytes(), expected[..8192]);
    drop((old, new, writer));
    // The mapping alone still holds the file open.
    let late = open_rw(mount.join("f"));
    late.write_all_at(b"late", 0).unwrap();
    assert_eq!(&mapping.bytes()[..4], b"late");
    drop((late, mapping));
    let asked = (count(&mount, "READ"), count(&mount, "WRITE"));
    let passed = open_rw(mount.join("f"));
    passed.write_all_at(b"last", 0).unwrap();
    assert_eq!(&read_whole(&passed)[..4096], [b"last", &expected[4..4096]].concat());
    assert_eq!((count(&mount, "READ"), count(&mount, "WRITE")), asked, "neither mode was left");
    drop(passed);
    mount.remount();
    assert_eq!(&fs::read(mount.join("f")).unwrap()[..5], b"lasto");
    layers.assert_lowers_untouched();
}

#[test]
fn truncation_by_path_reaches_open_files_of_both_modes() {
    needs!(machine::passthrough());
    let layers = Layers::new(&[&[file("low", "0123456789")]]);
    let mount = passing(&layers);
    fs::write(mount.join("up"), "0123456789").unwrap();
    for name in ["low", "up"] {
        let (reader, writer) = (File::open(mount.join(name)).unwrap(), open_rw(mount.join(name)));
        machine::run("truncate", &["-s", "4", mount.join(name).to_str().unwrap()]);
        assert_eq!(read_whole(&reader), b"0123", "{name}");
        writer.write_all_at(b"89", 8).unwrap();
        assert_eq!(read_whole(&reader), b"0123\0\0\0\089", "{name}");
        assert_eq!(reader.metadata().unwrap().len(), 10, "{name}");
        fs::write(mount.join(name), "cut").unwrap();
        assert_eq!((read_whole(&reader), read_whole(&writer)), (b"cut".to_vec(), b"cut".to_vec()), "{name}");
    }
    layers.assert_lowers_untouched();
}

/// What goes to the server and what goes past it meet in the backing file.
fn every_call(writer: &File, reader: &File, other: &File) {
    writer.write_all_at(&[b'a'; 16_384], 0).unwrap();
    writer.sync_all().unwrap();
    rustix::fs::fallocate(writer, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 4096, 8192).unwrap();
    let expected = [vec![b'a'; 4096], vec![0; 8192], vec![b'a'; 4096]].concat();
    assert_eq!(read_whole(reader), expected);
    assert_eq!(rustix::fs::seek(reader, Sparse::Hole(0)).unwrap(), 4096);
    assert_eq!(rustix::fs::seek(reader, Sparse::Data(4096)).unwrap(), 12_288);
    assert_eq!({ reader }.seek(SeekFrom::End(-1)).unwrap(), 16_383);
    writer.set_len(5000).unwrap();
    assert_eq!(read_whole(reader), expected[..5000]);
    assert_eq!(reader.metadata().unwrap().len(), 5000);
    let (mut from, mut to) = (0, 10_000);
    assert_eq!(rustix::fs::copy_file_range(reader, Some(&mut from), other, Some(&mut to), 5000).unwrap(), 5000);
    assert_eq!(read_whole(other)[10_000..], expected[..5000]);
    let mut append = fs::OpenOptions::new().append(true).open(format!("/proc/self/fd/{}", fd(writer))).unwrap();
    append.write_all(b"end").unwrap();
    assert_eq!(read_whole(reader), [&expected[..5000], b"end"].concat());
    writer.sync_data().unwrap();
}

fn fd(file: &File) -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(file)
}

#[test]
fn calls_that_go_to_the_server_meet_those_that_do_not() {
    needs!(machine::passthrough());
    let layers = Layers::new(&[&[file("low", "low"), file("gone", "gone")]]);
    let mount = passing(&layers);
    fs::write(mount.join("up"), "up").unwrap();
    fs::write(mount.join("other"), "").unwrap();
    let other = open_rw(mount.join("other"));
    for name in ["up", "low"] {
        every_call(&open_rw(mount.join(name)), &File::open(mount.join(name)).unwrap(), &other);
    }
    // Now both lie in the upper layer, and are passed through.
    every_call(&open_rw(mount.join("low")), &File::open(mount.join("low")).unwrap(), &other);
    // Without a name, and under a further one.
    let (writer, reader) = (open_rw(mount.join("up")), File::open(mount.join("up")).unwrap());
    fs::hard_link(mount.join("up"), mount.join("linked")).unwrap();
    fs::rename(mount.join("low"), mount.join("up")).unwrap();
    every_call(&writer, &reader, &other);
    assert_eq!(read_whole(&reader), fs::read(mount.join("linked")).unwrap());
    fs::remove_file(mount.join("linked")).unwrap();
    assert_eq!(reader.metadata().unwrap().nlink(), 0);
    every_call(&writer, &reader, &other);
    let (writer, reader) = (open_rw(mount.join("gone")), File::open(mount.join("gone")).unwrap());
    fs::remove_file(mount.join("gone")).unwrap();
    every_call(&writer, &reader, &other);
    layers.assert_lowers_untouched();
}

#[test]
fn programs_run_from_either_layer() {
    needs!(machine::passthrough());
    let program = fs::read(machine::find_program("true").unwrap()).unwrap();
    let layers = Layers::new(&[&[file("low", &program).mode(0o755)]]);
    let mount = passing(&layers);
    fs::copy(mount.join("low"), mount.join("up")).unwrap();
    for name in ["low", "up"] {
        assert!(Command::new(mount.join(name)).status().unwrap().success(), "{name}");
    }
    let writer = OpenOptions::new().append(true).open(mount.join("up")).unwrap();
    let busy = Command::new(mount.join("up")).status().unwrap_err();
    assert_eq!(busy.raw_os_error(), Some(libc::ETXTBSY));
    drop(writer);
    assert!(Command::new(mount.join("up")).status().unwrap().success());
}

fn mtime(path: &Path) -> i64 {
    let found = rustix::fs::statx(rustix::fs::CWD, path, AtFlags::empty(), StatxFlags::MTIME).unwrap();
    found.stx_mtime.tv_sec
}

/// The kernel tells nobody of a store into a mapping, which may outlive every descriptor. Only the time of modification is asked for: to
/// ask for that of access as well would make the kernel ask the server in any case.
#[test]
fn store_after_the_last_close_shows_in_the_modification_time() {
    needs!(machine::passthrough());
    let layers = Layers::new(&[&[file("low", vec![b'l'; 4096])]]);
    let mount = passing(&layers);
    fs::write(mount.join("up"), vec![b'u'; 4096]).unwrap();
    fs::set_permissions(mount.join("low"), fs::Permissions::from_mode(0o600)).unwrap();
    for name in ["up", "low"] {
        let path = mount.join(name);
        let make_old = |seconds| {
            let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(rustix::fs::CWD, &path, &times, AtFlags::empty()).unwrap();
            assert_eq!(mtime(&path), seconds, "{name}");
        };
        make_old(1000);
        let open = open_rw(&path);
        let mapping = SharedMap::new(&open, 4096, true).unwrap();
        drop(open);
        assert_eq!(mtime(&path), 1000, "{name}");
        mapping.store(7, b"stored").unwrap();
        assert!(mtime(&path) > 1000, "{name}: the store does not show");
        make_old(2000);
        // The pages were written back by the first store, so this one is noticed again.
        mapping.store(7, b"STORED").unwrap();
        assert!(mtime(&path) > 2000, "{name}: the second store does not show");
        assert_eq!(&fs::read(&path).unwrap()[7..13], b"STORED", "{name}");
        // The mapping also keeps the kernel from forgetting the inode, and us what we know of it.
        machine::forget_names(mount.path());
        make_old(3000);
        mapping.store(7, b"AGAIN!").unwrap();
        assert!(mtime(&path) > 3000, "{name}: the store after the caches were dropped does not show");
    }
    layers.assert_lowers_untouched();
}

#[test]
fn privileges_are_dropped_by_writes_past_the_server() {
    needs!(machine::passthrough(), machine::program("setpriv"));
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let layers = Layers::new(&[&[]]);
    let mount = passing(&layers);
    let scripts =
        [("written", "echo >>"), ("rewritten", "echo 1<>"), ("truncated", "truncate -s 2"), ("emptied", ": >")];
    for (name, script) in scripts {
        let path = mount.join(name);
        fs::write(&path, "content").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6777)).unwrap();
        machine::run("setfattr", &["-n", "security.capability", "-v", &hex(&capability), path.to_str().unwrap()]);
        let output = machine::shell_as(1000, &format!("{script} '{}'", path.display()));
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        for shown in [&path, &layers.upper.join(name)] {
            assert_eq!(shown.metadata().unwrap().mode() & 0o7777, 0o777, "{name}");
            assert_eq!(support::literal::xattr(shown, "security.capability"), None, "{name}");
        }
    }
    assert_eq!(count(&mount, "WRITE"), 0);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// Takes the attribute of a file of the upper layer away again, or nobody could remove it.
struct Attribute(&'static str, PathBuf);

impl Attribute {
    fn set(letter: &'static str, path: PathBuf) -> Attribute {
        machine::run("chattr", &[&format!("+{letter}"), path.to_str().unwrap()]);
        Attribute(letter, path)
    }
}

impl Drop for Attribute {
    fn drop(&mut self) {
        machine::output("chattr", &[&format!("-{}", self.0), self.1.to_str().unwrap()]);
    }
}

/// The kernel opens a backing file without asking what chattr(1) forbids.
#[test]
fn immutable_and_append_only_files_are_not_written() {
    needs!(machine::passthrough(), machine::program("chattr"));
    let layers = Layers::new(&[&[]]);
    let mount = passing(&layers);
    ["fixed", "log"].iter().for_each(|name| fs::write(mount.join(name), "content").unwrap());
    let _fixed = Attribute::set("i", layers.upper.join("fixed"));
    let _log = Attribute::set("a", layers.upper.join("log"));
    let errno = |outcome: std::io::Result<File>| outcome.err().and_then(|error| error.raw_os_error());
    let write = |name: &str| errno(OpenOptions::new().write(true).open(mount.join(name)));
    assert_eq!((write("fixed"), write("log")), (Some(libc::EPERM), Some(libc::EPERM)));
    OpenOptions::new().append(true).open(mount.join("log")).unwrap().write_all(b"!").unwrap();
    assert_eq!(errno(OpenOptions::new().append(true).open(mount.join("fixed"))), Some(libc::EPERM));
    assert_eq!(
        (fs::read(mount.join("fixed")).unwrap(), fs::read(mount.join("log")).unwrap()),
        (b"content".into(), b"content!".into())
    );
}

#[test]
fn direct_io_reads_and_writes() {
    needs!(machine::passthrough());
    let layers = Layers::new(&[&[]]);
    let mount = passing(&layers);
    fs::write(mount.join("f"), vec![b'x'; 8192]).unwrap();
    let direct = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(mount.join("f")).unwrap();
    let mut page = vec![0; 4096 * 3];
    let start = page.as_ptr().align_offset(4096);
    assert_eq!(direct.read_at(&mut page[start..start + 4096], 4096).unwrap(), 4096);
    assert_eq!(page[start..start + 4096], [b'x'; 4096]);
    page[start..start + 4096].fill(b'y');
    direct.write_all_at(&page[start..start + 4096], 0).unwrap();
    assert_eq!(fs::read(mount.join("f")).unwrap(), [[b'y'; 4096], [b'x'; 4096]].concat());
    assert_eq!((count(&mount, "READ"), count(&mount, "WRITE")), (0, 0));
}

#[test]
fn layers_on_overlayfs_are_passed_through_and_such_a_mount_is_a_layer_elsewhere() {
    needs!(machine::passthrough(), KernelOverlay::missing());
    let below = Layers::new(&[&[dir("lower"), file("lower/f", "on overlayfs"), dir("mnt")]]);
    let stacked = KernelOverlay::new(&below);
    let options = format!("lowerdir={},io=passthrough", stacked.join("lower").display());
    let mount = Lamina::with_options(&options, &stacked.join("mnt")).mount();
    assert_eq!(fs::read(mount.join("f")).unwrap(), b"on overlayfs");
    assert_eq!(count(&mount, "READ"), 0);
    drop(mount);
    let layers = Layers::new(&[&[file("f", "plain")]]);
    let mount = passing(&layers);
    let mut above = Layers::new(&[]);
    above.lowers = vec![mount.path().into()];
    let overlay = KernelOverlay::with(&above, "index=off");
    assert_eq!(fs::read(overlay.join("f")).unwrap(), b"plain");
    drop(overlay);
}

/// The kernel passes through to the second of stacked filesystems, not to the third: that is only seen when a file is opened.
#[test]
fn files_that_the_kernel_does_not_take_go_through_the_server() {
    needs!(machine::passthrough(), KernelOverlay::missing());
    let first = Layers::new(&[&[dir("lower"), file("lower/f", "far up"), dir("upper"), dir("work"), dir("mnt")]]);
    let second = KernelOverlay::new(&first);
    let mut on_second = Layers::new(&[]);
    on_second.lowers = vec![second.path().into()];
    let third = KernelOverlay::with(&on_second, "index=off");
    let lower = format!("lowerdir={},io=passthrough", third.join("lower").display());
    let mount = Lamina::with_options(&lower, &third.join("mnt")).mount();
    let (one, other) = (File::open(mount.join("f")).unwrap(), File::open(mount.join("f")).unwrap());
    assert_eq!((read_whole(&one), read_whole(&other)), (b"far up".into(), b"far up".into()));
    assert!(count(&mount, "READ") > 0);
    drop((one, other, mount));
    let upper = format!("{lower},upperdir={},workdir={}", third.join("upper").display(), third.join("work").display());
    let refused = Lamina::with_options(&upper, &third.join("mnt")).run();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("lies on too many others"), "{refused:?}");
}

#[test]
fn refused_with_a_sentence_where_it_cannot_work() {
    needs!(machine::passthrough(), machine::program("unshare"));
    let layers = Layers::new(&[&[file("f", "x")]]);
    let inside = Lamina::on(&layers).option("io=passthrough").through(&["unshare", "-Urm"]);
    let refused = inside.run();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("io=passthrough does not work here"), "{refused:?}");
    assert!(refused.stderr.contains("CAP_SYS_ADMIN outside of any user namespace"), "{refused:?}");
    let refused = Lamina::on(&layers).option("io=passthrough,writeback=1").run();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("exclude each other"), "{refused:?}");
    passing(&layers).unmount();
    layers.assert_lowers_untouched();
}
