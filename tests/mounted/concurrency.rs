//! Many threads: each sees its own work, together they break nothing, and none waits for the data copy of another's file.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use support::lamina::Lamina;
use support::sys::SharedMap;
use support::{Entry, LaminaMount, Layers, Tree, View, dir, file, machine, needs};

const THREADS: usize = 8;
const ROUNDS: usize = 60;

fn append(path: &Path, text: &str) -> std::io::Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(text.as_bytes())
}

/// One thread's work on names of its own, in `dir`: copy-ups, creations, renames, removals.
fn work_alone(dir: &Path, own: usize) {
    let name = |what: &str| dir.join(format!("{what}-{own}"));
    for round in 0..ROUNDS {
        append(&name("low"), "+").unwrap();
        fs::write(name("new"), round.to_string()).unwrap();
        fs::rename(name("new"), name("moved")).unwrap();
        fs::hard_link(name("moved"), name("linked")).unwrap();
        assert_eq!(fs::read_to_string(name("linked")).unwrap(), round.to_string());
        assert_eq!(name("moved").metadata().unwrap().nlink(), 2);
        fs::create_dir(name("dir")).unwrap();
        fs::write(name("dir").join("x"), "").unwrap();
        assert_eq!(fs::remove_dir(name("dir")).unwrap_err().raw_os_error(), Some(libc::ENOTEMPTY));
        fs::remove_file(name("dir").join("x")).unwrap();
        fs::remove_dir(name("dir")).unwrap();
        fs::remove_file(name("linked")).unwrap();
        assert!(fs::read_dir(dir).unwrap().any(|entry| entry.unwrap().path() == name("low")));
    }
}

fn lower() -> Vec<Entry> {
    let mut entries = vec![dir("shared")];
    entries.extend((0..THREADS).map(|own| file(&format!("shared/low-{own}"), "x")));
    entries
        .extend((0..THREADS).flat_map(|own| [dir(&format!("own-{own}")), file(&format!("own-{own}/low-{own}"), "x")]));
    entries
}

fn assert_all_done(root: &Path, place: impl Fn(usize) -> String) {
    for own in 0..THREADS {
        let dir = root.join(place(own));
        assert_eq!(fs::read_to_string(dir.join(format!("low-{own}"))).unwrap(), format!("x{}", "+".repeat(ROUNDS)));
        assert_eq!(fs::read_to_string(dir.join(format!("moved-{own}"))).unwrap(), (ROUNDS - 1).to_string());
    }
}

#[test]
fn threads_in_one_directory_do_not_disturb_each_other() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&lower()]);
    let mut mount = LaminaMount::new(&layers);
    let shared = mount.join("shared");
    std::thread::scope(|scope| {
        (0..THREADS).for_each(|own| {
            drop(scope.spawn({
                let shared = &shared;
                move || work_alone(shared, own)
            }))
        })
    });
    assert_all_done(mount.path(), |_| "shared".into());
    let before = Tree::read(mount.path());
    mount.remount();
    before.assert_same(&Tree::read(mount.path()), View::ALL);
    assert_eq!(layers.names_in_work(), Vec::<String>::new());
    layers.assert_lowers_untouched();
}

#[test]
fn threads_in_directories_of_their_own_do_not_disturb_each_other() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&lower()]);
    let mount = LaminaMount::new(&layers);
    std::thread::scope(|scope| {
        for own in 0..THREADS {
            let dir = mount.join(&format!("own-{own}"));
            scope.spawn(move || work_alone(&dir, own));
        }
    });
    assert_all_done(mount.path(), |own| format!("own-{own}"));
    layers.assert_lowers_untouched();
}

/// Only what a race allows: a name that another took, took away, or made a directory (EPERM of link).
fn allow_race(outcome: std::io::Result<()>) {
    let allowed = [
        libc::EPERM,
        libc::ENOENT,
        libc::EEXIST,
        libc::ENOTEMPTY,
        libc::EISDIR,
        libc::ENOTDIR,
        libc::EINVAL,
        libc::EXDEV,
        libc::ESTALE,
    ];
    if let Err(error) = outcome {
        assert!(error.raw_os_error().is_some_and(|errno| allowed.contains(&errno)), "{error}");
    }
}

/// All threads on the same few names. What each gets is a race; that the tree is whole afterwards, and the same after a remount, is not.
#[test]
fn threads_on_the_same_names_leave_a_whole_tree() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[file("a", "a"), support::link("b", "a"), dir("d"), file("d/c", "c")]]);
    let mut mount = LaminaMount::new(&layers);
    let root = mount.path().to_path_buf();
    let names = ["a", "b", "d/c", "d/e", "d", "n"];
    std::thread::scope(|scope| {
        for own in 0..THREADS {
            let root = &root;
            scope.spawn(move || {
                for round in 0..ROUNDS * 4 {
                    let pick =
                        |salt: usize| root.join(names[(own * 7 + round * 5 + salt * 3 + round / 6) % names.len()]);
                    allow_race(match (round + own) % 7 {
                        0 => append(&pick(1), "x"),
                        1 => fs::rename(pick(1), pick(2)),
                        2 => fs::remove_file(pick(3)),
                        3 => fs::hard_link(pick(1), pick(4)),
                        4 => fs::write(pick(2), "new"),
                        5 => fs::create_dir(pick(5)),
                        _ => fs::read_dir(root).map(|entries| entries.for_each(drop)),
                    });
                }
            });
        }
    });
    let before = Tree::read(mount.path());
    mount.remount();
    before.assert_same(&Tree::read(mount.path()), View::ALL);
    assert_eq!(layers.names_in_work(), Vec::<String>::new());
    layers.assert_lowers_untouched();
}

/// Bytes that the server has dirtied so far, see proc_pid_io(5): grows while it copies, whatever call it copies with.
fn written_by(mount: &LaminaMount) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", mount.server_pid())).unwrap();
    io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap().parse().unwrap()
}

/// Shown by the order of events: operations on other files begin after the copy has begun, and end before it has ended.
#[test]
fn copy_up_of_a_large_file_blocks_nobody_else() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[dir("d"), file("d/other", "x"), file("near", "x")]]);
    fs::write(layers.lowers[0].join("large"), vec![b'L'; 512 << 20]).unwrap();
    // Without fsync(2): the small copy-ups would wait for it, and it for the journal of the disk below, which writes the large copy out first.
    let mount = Lamina::on(&layers).option("volatile").mount();
    let start = written_by(&mount);
    let copied = AtomicBool::new(false);
    let during = std::thread::scope(|scope| {
        scope.spawn(|| {
            append(&mount.join("large"), "!").unwrap();
            copied.store(true, Ordering::SeqCst);
        });
        let mut during = 0;
        for round in 0.. {
            let begun = written_by(&mount) > start + (16 << 20);
            let (new, near) = (mount.join(&format!("d/new-{round}")), mount.join(&format!("near-{round}")));
            fs::write(&new, "n").unwrap();
            append(&mount.join("d/other"), "+").unwrap();
            append(&mount.join("near"), "+").unwrap();
            fs::rename(&new, &near).unwrap();
            fs::remove_file(&near).unwrap();
            if copied.load(Ordering::SeqCst) {
                break;
            }
            during += usize::from(begun);
        }
        during
    });
    println!("{during} rounds of operations ran within one copy-up");
    assert!(during > 0, "every operation waited for the copy-up of another file");
    let stat = mount.join("large").metadata().unwrap();
    assert_eq!(stat.len(), (512 << 20) + 1);
}

const OPENS: usize = 400;
const NAMES: [&str; 6] = ["d/a", "d/b", "d/c", "d/linked", "d/new", "d/other"];

fn one_letter_each() -> Vec<Entry> {
    let mut entries = vec![dir("d")];
    entries.extend(NAMES[..3].iter().map(|name| file(name, letter(name, 5000))));
    entries.push(support::link("d/linked", "d/c"));
    entries
}

/// Every file that has this name, or did, consists of one letter, and of zeros where a writer went on behind a cut: whoever reads another
/// letter reads somebody else's data.
fn letter(name: &str, length: usize) -> Vec<u8> {
    let name = if name == "d/linked" { "d/c" } else { name };
    vec![name.as_bytes()[2]; length]
}

/// A name that another thread has just taken away is no failure; everything else is.
fn open_racing(options: &mut OpenOptions, path: &Path) -> Option<File> {
    match options.open(path) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

fn assert_own(file: &File, name: &str) {
    let mut content = vec![0; 1 << 16];
    let length = file.read_at(&mut content, 0).unwrap();
    let own = letter(name, 1)[0];
    assert!(content[..length].iter().all(|byte| [own, 0].contains(byte)), "{name} holds bytes of another file");
}

fn use_files(root: &Path, thread: usize) {
    let mut held: Vec<(File, &str)> = Vec::new();
    let mut mapped: Vec<SharedMap> = Vec::new();
    for round in 0..OPENS {
        let name = NAMES[(thread * 5 + round * 7 + round / 11) % NAMES.len()];
        let path = root.join(name);
        let opened = match (round + thread) % 9 {
            0 | 1 => open_racing(OpenOptions::new().read(true), &path),
            2 => open_racing(OpenOptions::new().read(true).append(true), &path),
            3 => open_racing(OpenOptions::new().read(true).write(true), &path),
            4 => open_racing(OpenOptions::new().read(true).write(true).create(true).truncate(true), &path),
            5 => open_racing(OpenOptions::new().read(true).write(true).create(true), &path),
            6 => {
                // A copy-up by a change of the mode, while others have the file open.
                if let Err(error) = fs::set_permissions(&path, Permissions::from_mode(0o644)) {
                    assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
                }
                None
            }
            7 if round % 4 == 0 => {
                if let Err(error) = fs::remove_file(&path) {
                    assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
                }
                None
            }
            _ => {
                held.clear();
                mapped.clear();
                None
            }
        };
        let Some(file) = opened else { continue };
        assert_own(&file, name);
        if matches!((round + thread) % 9, 2..=5) {
            { &file }.write_all(&letter(name, 3000)).unwrap();
            if round % 3 == 0 {
                file.set_len(1000).unwrap();
                // Another thread may cut the file at any time: what is mapped is not touched, only held, longer than the descriptor.
                mapped.push(SharedMap::new(&file, 4096, true).unwrap());
            }
        }
        held.push((file, name));
        if held.len() > 6 {
            let (old, name) = held.swap_remove(round % 6);
            assert_own(&old, name);
        }
    }
    held.iter().for_each(|(file, name)| assert_own(file, name));
}

/// The kernel answers EIO to an open in another mode than that of the other opens: here every error is a failure of the test.
#[test]
fn threads_that_open_close_and_copy_up_the_same_files_see_no_error() {
    needs!(machine::passthrough());
    for _ in 0..3 {
        let layers = Layers::new(&[&one_letter_each()]);
        let mut mount = Lamina::on(&layers).option("io=passthrough").mount();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let root = mount.path();
                scope.spawn(move || use_files(root, thread));
            }
        });
        for name in NAMES {
            if let Some(file) = open_racing(OpenOptions::new().read(true), &mount.join(name)) {
                assert_own(&file, name);
            }
        }
        mount.remount();
        layers.assert_lowers_untouched();
    }
}
