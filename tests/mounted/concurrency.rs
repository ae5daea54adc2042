//! Many threads: each sees its own work, together they break nothing, and none waits for the data copy of another's file.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

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
    let mount = LaminaMount::new(&layers);
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
