//! Archives that were made to write elsewhere, or to exhaust the machine: each is refused with a sentence that names the
//! entry, and nothing outside the target changes.

use super::tests::{Tar, Target, attributes};
use super::*;

/// Applies into a directory beside which a canary lives; answers the refusal.
fn refusal(tar: &[u8]) -> String {
    let target = Target::new();
    let canary = target.home.path().with_extension("canary");
    std::fs::create_dir(&canary).expect("mkdir");
    let outcome = target.apply(tar);
    let untouched = std::fs::read_dir(&canary).expect("it is still there").next().is_none();
    std::fs::remove_dir_all(&canary).expect("rmdir");
    assert!(untouched, "something was written outside");
    outcome.expect_err("it is refused").to_string()
}

#[track_caller]
fn refused(tar: Tar, entry: &str, why: &str) {
    let text = refusal(&tar.bytes());
    assert!(text.contains(entry) && text.contains(why), "{text}");
}

#[test]
fn names_with_dot_dot() {
    for name in ["../x", "a/../../x", "..", "a/..", "/../x"] {
        refused(Tar::new().file(name, b""), name, "leads out of the layer");
    }
}

#[test]
fn absolute_names_are_taken_as_below_the_root() {
    let (target, _) = Target::written(Tar::new().file("/etc//./x", b"").file("./y", b""));
    assert!(target.path("etc/x").exists() && target.path("y").exists());
}

#[test]
fn parents_that_are_links() {
    refused(Tar::new().symlink("a", "/tmp").file("a/x", b""), "a/x", "symbolic link");
    refused(Tar::new().symlink("a", "..").file("a/x", b""), "a/x", "symbolic link");
    refused(Tar::new().dir("d").symlink("a", "d").file("a/x", b""), "a/x", "symbolic link");
    refused(Tar::new().symlink("a", "/tmp").file("a/.wh.x", b""), "a/.wh.x", "symbolic link");
    refused(Tar::new().symlink("a", "/tmp").file("a/.wh..wh..opq", b""), "a/.wh..wh..opq", "symbolic link");
    refused(Tar::new().file("a", b"").file("a/x", b""), "a/x", "file");
}

#[test]
fn hard_links_out_of_the_layer() {
    refused(Tar::new().link("a", "../../etc/passwd"), "../../etc/passwd", "leads out");
    refused(Tar::new().link("a", "/etc/passwd"), "/etc/passwd", "does not have");
    refused(Tar::new().symlink("l", "/etc").link("a", "l/passwd"), "l/passwd", "does not have");
    refused(Tar::new().dir("d").link("a", "d"), "\"d\"", "does not have");
    refused(Tar::new().file(".wh.w", b"").link("a", "w"), "\"w\"", "does not have");
}

#[test]
fn hard_link_to_a_link_does_not_follow_it() {
    let (target, _) = Target::written(Tar::new().symlink("l", "/etc/passwd").link("a", "l").file("a", b"mine"));
    assert_eq!(std::fs::read(target.path("a")).expect("read"), b"mine");
    assert!(target.path("l").is_symlink());
}

#[test]
fn file_over_a_link_does_not_follow_it() {
    let outside = tempfile::NamedTempFile::new().expect("temporary file");
    let path = outside.path().to_str().expect("UTF-8");
    let (target, _) = Target::written(Tar::new().symlink("l", path).file("l", b"written"));
    assert_eq!(std::fs::read(target.path("l")).expect("read"), b"written");
    assert_eq!(std::fs::metadata(outside.path()).expect("stat").len(), 0);
}

#[test]
fn whiteouts_of_dots() {
    for name in [".wh..", ".wh...", "a/.wh..."] {
        refused(Tar::new().file(name, b""), name, "hides");
    }
}

#[test]
fn root_that_is_no_directory() {
    refused(Tar::new().file("./", b""), "./", "must be a directory");
    refused(Tar::new().symlink("/", "/etc"), "/", "must be a directory");
}

#[test]
fn names_that_are_too_long_or_too_deep() {
    refused(Tar::new().file(&"n".repeat(256), b""), "nnn", "255");
    refused(Tar::new().file(&"n/".repeat(2100), b""), "n/n", "4096");
    refused(Tar::new().dir(&"n/".repeat(300)), "n/n", "256 directories deep");
}

/// A header by hand, for what the writer would not write.
fn raw(kind: u8, name: &[u8], size: &[u8], data: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    let old = header.as_old_mut();
    old.name[..name.len()].copy_from_slice(name);
    old.linkflag[0] = kind;
    old.size[..size.len()].copy_from_slice(size);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

#[test]
fn headers_that_are_too_large() {
    // The size is only announced: it must be refused before anything of it is read into memory.
    for kind in [b'x', b'L', b'K'] {
        let text = refusal(&raw(kind, b"big", b"77777777777\0", b""));
        assert!(text.contains("\"big\"") && text.contains("is the most"), "{text}");
    }
    let text = refusal(&raw(b'0', b"huge", b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b""));
    assert!(text.contains("\"huge\"") && text.contains("size"), "{text}");
}

#[test]
fn attributes_that_are_too_large() {
    for (name, value) in [("user.a".to_owned(), 65_537), (format!("user.{}", "n".repeat(300)), 1)] {
        let mut dressed = attributes(0o644);
        dressed.xattrs.push((name.into_bytes(), vec![b'v'; value]));
        let tar = Tar::new().entry("f", Kind::File { size: 0, pieces: None }, dressed);
        refused(tar, "extended attribute \"user.", "longer than Linux takes");
    }
}

#[test]
fn records_that_are_malformed() {
    for records in [&b"5 a=b"[..], b"x a=b\n", b"99 a=b\n", b"6 a b\n", b"12 size=-14\n", b"0 a=b\n"] {
        let size = format!("{:011o}\0", records.len());
        let text = refusal(&[raw(b'x', b"pax", size.as_bytes(), records), raw(b'0', b"f", b"", b"")].concat());
        assert!(text.contains("malformed"), "{records:?}: {text}");
    }
}

#[test]
fn names_with_a_zero_byte_or_none() {
    let records = b"12 path=a\0b\n";
    let size = format!("{:011o}\0", records.len());
    let text = refusal(&[raw(b'x', b"pax", size.as_bytes(), records), raw(b'0', b"f", b"", b"")].concat());
    assert!(text.contains("zero byte"), "{text}");
    assert!(refusal(&raw(b'0', b"", b"", b"")).contains("empty"));
    assert!(refusal(&raw(b'2', b"link", b"", b"")).contains("empty"));
}

#[test]
fn maps_that_do_not_fit() {
    let map = |text: &str| {
        let record = |key: &str, value: &str| {
            let rest = key.len() + value.len() + 3;
            let length = rest + if rest + 2 > 99 { 3 } else { 2 };
            format!("{length} {key}={value}\n")
        };
        let records = record("GNU.sparse.size", "1000000") + &record("GNU.sparse.map", text);
        let size = format!("{:011o}\0", records.len());
        [raw(b'x', b"pax", size.as_bytes(), records.as_bytes()), raw(b'0', b"sparse", b"00000000012\0", &[1; 10])]
            .concat()
    };
    let target = Target::new();
    target.apply(&map("0,4,500000,6")).expect("this one fits");
    for text in ["0,4,2,6", "0,4", "999999,10", "18446744073709551615,10", "500000,4,0,6"] {
        assert!(refusal(&map(text)).contains("map of data"), "{text}");
    }
}

#[test]
fn archives_that_are_cut_or_damaged() {
    let whole = Tar::new().file("f", &[b'x'; 5000]).bytes();
    for cut in [100, 600, 4000] {
        assert!(refusal(&whole[..cut]).contains("cut off"), "{cut}");
    }
    let mut damaged = whole.clone();
    damaged[10] ^= 1;
    assert!(refusal(&damaged).contains("wrong checksum"));
    assert!(refusal(&[b'z'; 2048]).contains("wrong checksum"));
}

#[test]
fn types_that_no_layer_holds() {
    let text = refusal(&raw(b'V', b"volume", b"", b""));
    assert!(text.contains("volume") && text.contains("'V'"), "{text}");
}

#[test]
fn layers_beyond_the_limits() {
    let small = ApplyOptions { limits: Limits { bytes_max: 10_000, inodes_max: 3 }, ..ApplyOptions::default() };
    let apply = |tar: Tar| {
        let target = Target::new();
        let root = std::fs::File::open(target.home.path()).expect("open");
        super::apply(std::os::fd::AsFd::as_fd(&root), tar.bytes().as_slice(), &small)
            .expect_err("it is refused")
            .to_string()
    };
    let text = apply(Tar::new().file("large", &[b'x'; 10_001]));
    assert!(text.contains("\"large\"") && text.contains("more than 10000 bytes"), "{text}");
    let text = apply(Tar::new().dir("a").dir("a").dir("a").dir("a"));
    assert!(text.contains("more than 3 files"), "{text}");
}

#[test]
fn devices_beyond_the_privilege() {
    // As root there is no such privilege to lack: then the kernel's answer is made up by the fault injector's place, `mknod`.
    let _armed = crate::sys::fault::arm(0, libc::EPERM);
    let tar = Tar::new().entry(
        "sda",
        Kind::Special { format: libc::S_IFBLK, rdev: rustix::fs::makedev(8, 0) },
        attributes(0o660),
    );
    refused(tar, "sda", "may not make");
}

#[test]
fn failure_of_any_call_is_an_error_and_no_panic() {
    let tar =
        || Tar::new().dir("d").file("d/f", b"data").symlink("d/s", "f").link("d/h", "d/f").file(".wh.w", b"").bytes();
    for nth in 0.. {
        let target = Target::new();
        let armed = crate::sys::fault::arm(nth, libc::ENOSPC);
        let outcome = target.apply(&tar());
        if !armed.fired() {
            outcome.expect("nothing failed");
            assert!(nth > 10, "calls are counted: {nth}");
            return;
        }
        assert!(outcome.is_err(), "call {nth} failed and nobody noticed");
    }
}

/// One entry of every kind, with long names, attributes and a map of holes.
fn everything() -> Vec<u8> {
    let mut dressed = attributes(0o755);
    dressed.xattrs.push((b"user.note".to_vec(), b"value\nof two lines".to_vec()));
    Tar::new()
        .entry("d/", Kind::Dir, dressed)
        .file("d/f", &[b'x'; 700])
        .file(&"long/".repeat(30), b"")
        .symlink("d/s", "../elsewhere")
        .link("d/h", "d/f")
        .file("d/.wh.gone", b"")
        .file("d/.wh..wh..opq", b"")
        .entry("p", Kind::Special { format: libc::S_IFIFO, rdev: 0 }, attributes(0o600))
        .bytes()
}

/// Changes bytes, and makes the checksums of headers right again: else almost every change would be stopped there.
fn mutated(mut bytes: Vec<u8>, changes: &[(proptest::sample::Index, u8)]) -> Vec<u8> {
    for (at, byte) in changes {
        let at = at.index(bytes.len());
        bytes[at] = *byte;
    }
    for block in bytes.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
    }
    bytes
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 256, failure_persistence: None, ..Default::default() })]

    /// Whatever an archive says, it is applied or refused: nothing outside changes, nothing panics, and what was applied can be
    /// written again.
    #[test]
    fn mutated_archives_are_applied_or_refused(
        changes in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), proptest::prelude::any::<u8>()), 0..12),
    ) {
        let home = tempfile::tempdir().expect("temporary directory");
        let (inside, canary) = (home.path().join("inside"), home.path().join("elsewhere"));
        std::fs::create_dir(&inside).expect("mkdir");
        std::fs::write(&canary, "untouched").expect("write");
        let root = std::fs::File::open(&inside).expect("open");
        let limits = Limits { bytes_max: 1 << 20, inodes_max: 1000 };
        let options = ApplyOptions { limits, ..ApplyOptions::default() };
        let outcome = apply(std::os::fd::AsFd::as_fd(&root), mutated(everything(), &changes).as_slice(), &options);
        let left: Vec<_> = std::fs::read_dir(home.path()).expect("read").map(|entry| entry.expect("entry").file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        assert_eq!(std::fs::read(&canary).expect("read"), b"untouched");
        if outcome.is_ok() {
            crate::layer::diff::diff(std::os::fd::AsFd::as_fd(&root), OverrideStat::Off, &Default::default(), std::io::sink()).expect("it is written again");
        }
    }
}
