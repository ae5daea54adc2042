//! What a mount says that its upper layer takes, against a walk of the directory: after each operation of random sequences, and after what
//! these do not do.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use lamina_fs::fuse::usage::Answer;
use rustix::fs::FallocateFlags;
use support::lamina::{self, Lamina};
use support::oracle::{Cases, Formats, Model, Op, PathTarget, Stack, follow};
use support::overlay::KernelOverlay;
use support::sys::SharedMap;
use support::usage::{Judged, walk};
use support::{Entry, LaminaMount, Layers, dir, file, link, machine, needs};

/// What the mount says, once it has counted if it must.
fn told(mountpoint: &Path) -> (u64, u64) {
    loop {
        match Answer::read(mountpoint).unwrap() {
            Answer::Known(usage) => return (usage.bytes, usage.inodes),
            Answer::Counting => std::thread::yield_now(),
            Answer::ReadOnly => panic!("it has an upper layer"),
        }
    }
}

fn run(stack: &Stack, ops: &[Op], options: &str) -> Result<(), String> {
    let literals = stack.literals(Formats::All { privileged: true });
    let literals: Vec<&[Entry]> = literals.iter().map(Vec::as_slice).collect();
    let layers = Layers::new(&literals);
    let mount = Lamina::on(&layers).option(options).mount();
    let mountpoint = mount.path().to_owned();
    let mut judged = Judged::new(PathTarget::new(mount), &layers.upper, |_| told(&mountpoint));
    follow(&mut judged, &mut Model::new(stack, true, (0, 0)), ops)?;
    judged.verdict()
}

#[test]
fn usage_is_that_of_a_walk() {
    needs!(machine::mounts());
    Cases::new(16, 40, 300).check(|stack, ops| run(stack, ops, "io=cached"));
}

#[test]
fn usage_of_files_that_the_kernel_writes_by_itself_is_that_of_a_walk() {
    needs!(machine::passthrough());
    Cases::new(16, 40, 300).check(|stack, ops| run(stack, ops, "io=passthrough"));
}

#[test]
fn usage_with_permissions_in_an_xattr_is_that_of_a_walk() {
    needs!(machine::mounts());
    Cases::new(16, 40, 300).check(|stack, ops| run(stack, ops, "xattr_permissions=2"));
}

/// A mount of one lower layer, with what is done to it.
fn check(options: &str, work: impl Fn(&LaminaMount)) {
    let layers = Layers::new(&[&[dir("d"), file("d/a", "below"), file("b", "below")]]);
    let mut mount = Lamina::on(&layers).option(options).mount();
    assert_eq!(told(mount.path()), walk(&layers.upper), "before");
    work(&mount);
    assert_eq!(told(mount.path()), walk(&layers.upper), "after");
    mount.remount();
    // No walk: what the last mount has written down is known at once.
    let known = matches!(Answer::read(mount.path()), Ok(Answer::Known(_)));
    assert!(known, "it was written down");
    assert_eq!(told(mount.path()), walk(&layers.upper), "after a remount");
}

#[test]
fn stores_into_a_mapping_are_counted() {
    needs!(machine::passthrough());
    for options in ["io=passthrough", "io=cached"] {
        check(options, |mount| {
            let file = File::options().read(true).write(true).create_new(true).open(mount.join("mapped")).unwrap();
            file.set_len(1 << 20).unwrap();
            let map = SharedMap::new(&file, 1 << 20, true).unwrap();
            drop(file);
            told(mount.path());
            map.store(300_000, b"stored").unwrap();
            File::open(mount.join("mapped")).unwrap().sync_all().unwrap();
        });
    }
}

#[test]
fn holes_removed_open_files_and_replaced_names_are_counted() {
    needs!(machine::mounts());
    check("io=cached", |mount| {
        let sparse = File::create(mount.join("sparse")).unwrap();
        sparse.write_all_at(b"end", 10 << 20).unwrap();
        fs::write(mount.join("full"), vec![1; 100_000]).unwrap();
        fs::write(mount.join("gone"), vec![1; 100_000]).unwrap();
        let gone = File::options().write(true).open(mount.join("gone")).unwrap();
        fs::remove_file(mount.join("gone")).unwrap();
        gone.write_all_at(&[2; 100_000], 1 << 20).unwrap();
        fs::rename(mount.join("full"), mount.join("sparse")).unwrap();
        fs::rename(mount.join("sparse"), mount.join("d/a")).unwrap();
        fs::hard_link(mount.join("b"), mount.join("second")).unwrap();
        fs::remove_file(mount.join("b")).unwrap();
        told(mount.path());
        fs::remove_dir_all(mount.join("d")).unwrap();
        fs::create_dir(mount.join("d")).unwrap();
    });
}

#[test]
fn space_that_is_given_and_taken_back_is_counted() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[]]);
    let mut mount = Lamina::on(&layers).mount();
    fs::write(mount.join("file"), "x").unwrap();
    for (flags, length) in
        [(FallocateFlags::empty(), 1 << 20), (FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 1 << 19)]
    {
        // So that nothing else has the file looked at.
        mount.remount();
        let file = File::options().write(true).open(mount.join("file")).unwrap();
        let before = told(mount.path());
        rustix::fs::fallocate(&file, flags, 0, length).unwrap();
        assert_eq!(told(mount.path()), walk(&layers.upper), "{flags:?}");
        assert!(told(mount.path()).0.abs_diff(before.0) >= 1 << 19, "{flags:?}");
    }
}

/// Its entry in the index of hard links is no part of the upper layer.
#[test]
fn file_whose_last_upper_name_goes_is_not_counted() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("b", "below"), link("c", "b")]]);
    let mount = Lamina::on(&layers).mount();
    let asked = |after: &str| assert_eq!(told(mount.path()), walk(&layers.upper), "{after}");
    fs::write(mount.join("b"), "more").unwrap();
    asked("a copy-up");
    fs::remove_file(mount.join("b")).unwrap();
    asked("its only name in upper");
    fs::write(mount.join("c"), "through the other").unwrap();
    asked("another name");
    fs::remove_file(mount.join("c")).unwrap();
    asked("the last name");
}

/// A whiteout that a rename leaves is a file of its own, the others share one.
#[test]
fn whiteouts_that_are_files_of_their_own_are_counted() {
    needs!(machine::mounts());
    check("io=cached", |mount| {
        fs::rename(mount.join("b"), mount.join("moved")).unwrap();
        told(mount.path());
        fs::write(mount.join("b"), "again").unwrap();
        fs::rename(mount.join("d/a"), mount.join("moved")).unwrap();
        fs::create_dir(mount.join("d/a")).unwrap();
    });
}

/// So many names that the directory's own blocks grow, and whiteouts of all of them.
#[test]
fn blocks_of_directories_are_counted() {
    needs!(machine::mounts());
    let names: Vec<String> = (0..600).map(|number| format!("d/a-long-name-of-file-number-{number}")).collect();
    let entries: Vec<Entry> = [dir("d")].into_iter().chain(names.iter().map(|name| file(name, "x"))).collect();
    let layers = Layers::new(&[&entries]);
    let mount = Lamina::on(&layers).mount();
    for (number, name) in names.iter().enumerate() {
        match number % 3 {
            0 => fs::remove_file(mount.join(name)).unwrap(),
            1 => fs::rename(mount.join(name), mount.join(&format!("{name}-moved"))).unwrap(),
            _ => fs::write(mount.join(name), "more").unwrap(),
        }
    }
    assert_eq!(told(mount.path()), walk(&layers.upper));
    fs::remove_dir_all(mount.join("d")).unwrap();
    assert_eq!(told(mount.path()), walk(&layers.upper));
}

/// Nothing was written down then, so it is counted once.
#[test]
fn usage_is_counted_anew_after_a_killed_server() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("b", "below")]]);
    let mut mount = Lamina::on(&layers).mount();
    fs::write(mount.join("own"), vec![1; 50_000]).unwrap();
    rustix::process::kill_process(mount.server_pid(), rustix::process::Signal::KILL).unwrap();
    mount.wait_for_exit();
    nix::mount::umount2(&layers.merged, nix::mount::MntFlags::MNT_DETACH).unwrap();
    let mount = Lamina::on(&layers).mount();
    assert!(matches!(Answer::read(mount.path()), Ok(Answer::Counting)), "nobody knows");
    assert_eq!(told(mount.path()), walk(&layers.upper));
}

/// What was written down before is not believed then.
#[test]
fn usage_is_counted_anew_after_a_mount_of_the_kernels_overlayfs() {
    needs!(machine::mounts(), KernelOverlay::missing());
    let layers = Layers::new(&[&[file("b", "below")]]);
    let mount = Lamina::on(&layers).mount();
    fs::write(mount.join("own"), "x").unwrap();
    drop(mount);
    let overlay = KernelOverlay::new(&layers);
    fs::write(overlay.join("theirs"), vec![1; 50_000]).unwrap();
    drop(overlay);
    let mount = Lamina::on(&layers).mount();
    assert!(matches!(Answer::read(mount.path()), Ok(Answer::Counting)), "nobody knows");
    assert_eq!(told(mount.path()), walk(&layers.upper));
}

#[test]
fn usage_command_tells_it_in_words_and_to_programs() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("below", "b")]]);
    let mount = LaminaMount::new(&layers);
    fs::write(mount.join("made"), vec![1; 1 << 16]).unwrap();
    // What the filesystem has promised for it is settled: the two questions are one after the other.
    File::open(mount.join("made")).unwrap().sync_all().unwrap();
    let at = mount.path().to_str().unwrap();
    let said = |words: &[&str]| machine::run(lamina::binary().to_str().unwrap(), &[&["usage", at], words].concat());
    let (bytes, inodes) = walk(&layers.upper);
    assert_eq!(said(&[]), format!("{bytes} bytes, {inodes} inodes\n"));
    assert_eq!(said(&["--format", "json"]), format!("{{\"bytes\":{bytes},\"inodes\":{inodes}}}\n"));
    let refused = machine::output(lamina::binary().to_str().unwrap(), &["usage", layers.upper.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
}
