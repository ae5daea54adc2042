//! Reading a directory piece by piece while it changes, through several descriptors. The kernel keeps listings, fills one from what one
//! descriptor reads and shows it to the others, and so a position must mean the same to all of them and at all times. POSIX, readdir(): what is
//! neither added nor removed since a directory was opened or rewound is shown exactly once.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use rustix::fs::{RawDir, SeekFrom, seek};
use support::lamina::Lamina;
use support::{Entry, LaminaMount, Layers, dir, file, machine, needs};

/// Names that a lower directory has: a reply of the server to a small piece holds a quarter of them.
const NAMES: usize = 100;
/// Names that can be created.
const MORE_NAMES: usize = 20;
/// Bytes of a piece: some fifteen names. The server is asked for a page, whatever is asked of the kernel.
const PIECE_BYTES: usize = 512;
/// Descriptors that read at the same time.
const READERS: usize = 3;

/// Directories `d0`, `d1`, ... in two layers, a third of the names in the upper one of them.
fn layers(dirs: usize) -> Layers {
    let names = |keep: fn(usize) -> bool| -> Vec<Entry> {
        let in_dir =
            |at: usize| (0..NAMES).filter(move |name| keep(*name)).map(move |name| file(&format!("d{at}/{name}"), ""));
        (0..dirs).flat_map(|at| std::iter::once(dir(&format!("d{at}"))).chain(in_dir(at))).collect()
    };
    Layers::new(&[&names(|name| name % 3 == 0), &names(|name| name % 3 != 0)])
}

/// One descriptor, and what POSIX promises to who reads it.
struct Reader {
    open: File,
    /// Shown since it was opened or rewound.
    shown: Vec<String>,
    /// There at all times since then.
    stayed: BTreeSet<String>,
    /// There at some time since then.
    existed: BTreeSet<String>,
    /// A position, and how much had been shown there.
    remembered: Option<(u64, usize)>,
}

impl Reader {
    fn new(path: &Path, there: &BTreeSet<String>) -> Reader {
        let open = File::open(path).unwrap();
        Reader { open, shown: Vec::new(), stayed: there.clone(), existed: there.clone(), remembered: None }
    }

    fn rewind(&mut self, there: &BTreeSet<String>) {
        seek(&self.open, SeekFrom::Start(0)).unwrap();
        self.shown.clear();
        (self.stayed, self.existed, self.remembered) = (there.clone(), there.clone(), None);
    }

    /// Reads a piece; whether the end is reached.
    fn piece(&mut self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); PIECE_BYTES];
        let mut piece = RawDir::new(&self.open, &mut buffer);
        let mut empty = true;
        while let Some(entry) = piece.next() {
            let entry = entry.unwrap();
            let name = entry.file_name().to_str().unwrap().to_owned();
            if name != "." && name != ".." {
                self.shown.push(name);
            }
            empty = false;
            if piece.is_buffer_empty() {
                break;
            }
        }
        empty
    }

    /// Checks what was shown so far, and at the end whether it was all.
    fn check(&self, ended: bool) -> Result<(), String> {
        let shown: BTreeSet<&String> = self.shown.iter().collect();
        if shown.len() != self.shown.len() {
            return Err(format!("a name is shown twice: {:?}", self.shown));
        }
        if let Some(ghost) = shown.iter().find(|name| !self.existed.contains(**name)) {
            return Err(format!("{ghost} is shown and was never there"));
        }
        match self.stayed.iter().find(|name| ended && !shown.contains(name)) {
            Some(skipped) => Err(format!("{skipped} was there all the time and is not shown")),
            None => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<(), String> {
        while !self.piece() {}
        self.check(true)
    }
}

/// A directory with its readers, and what is in it.
struct Scene {
    path: PathBuf,
    there: BTreeSet<String>,
    readers: Vec<Reader>,
}

#[derive(Debug, Clone)]
enum Step {
    Piece(usize),
    ToTheEnd(usize),
    Remember(usize),
    Return(usize),
    Rewind(usize),
    Reopen(usize),
    List,
    Toggle(usize),
    RemoveShown(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let reader = 0..READERS;
    prop_oneof![
        6 => reader.clone().prop_map(Step::Piece),
        1 => reader.clone().prop_map(Step::ToTheEnd),
        1 => reader.clone().prop_map(Step::Remember),
        1 => reader.clone().prop_map(Step::Return),
        1 => reader.clone().prop_map(Step::Rewind),
        1 => reader.clone().prop_map(Step::Reopen),
        1 => Just(Step::List),
        4 => (0..NAMES + MORE_NAMES).prop_map(Step::Toggle),
        1 => reader.prop_map(Step::RemoveShown),
    ]
}

impl Scene {
    fn new(path: PathBuf) -> Scene {
        let there: BTreeSet<String> = (0..NAMES).map(|name| name.to_string()).collect();
        let readers = (0..READERS).map(|_| Reader::new(&path, &there)).collect();
        Scene { path, there, readers }
    }

    fn create(&mut self, name: &str) {
        File::create_new(self.path.join(name)).unwrap();
        self.there.insert(name.to_owned());
        self.readers.iter_mut().for_each(|reader| {
            reader.existed.insert(name.to_owned());
        });
    }

    fn remove(&mut self, name: &str) {
        fs::remove_file(self.path.join(name)).unwrap();
        self.there.remove(name);
        self.readers.iter_mut().for_each(|reader| {
            reader.stayed.remove(name);
        });
    }

    fn follow(&mut self, step: &Step) -> Result<(), String> {
        match *step {
            Step::Piece(at) => {
                let ended = self.readers[at].piece();
                self.readers[at].check(ended)
            }
            Step::ToTheEnd(at) => self.readers[at].finish(),
            Step::Remember(at) => {
                let reader = &mut self.readers[at];
                reader.remembered = Some((seek(&reader.open, SeekFrom::Current(0)).unwrap(), reader.shown.len()));
                Ok(())
            }
            Step::Return(at) => {
                let reader = &mut self.readers[at];
                if let Some((position, shown)) = reader.remembered {
                    seek(&reader.open, SeekFrom::Start(position)).unwrap();
                    reader.shown.truncate(shown);
                }
                Ok(())
            }
            Step::Rewind(at) => {
                self.readers[at].rewind(&self.there);
                Ok(())
            }
            Step::Reopen(at) => {
                self.readers[at] = Reader::new(&self.path, &self.there);
                Ok(())
            }
            Step::List => Reader::new(&self.path, &self.there).finish(),
            Step::Toggle(name) => {
                let name = name.to_string();
                match self.there.contains(&name) {
                    true => self.remove(&name),
                    false => self.create(&name),
                }
                Ok(())
            }
            Step::RemoveShown(at) => {
                let shown = self.readers[at].shown.clone();
                shown
                    .iter()
                    .filter(|name| self.there.contains(*name))
                    .cloned()
                    .collect::<Vec<_>>()
                    .iter()
                    .for_each(|name| self.remove(name));
                Ok(())
            }
        }
    }

    fn end(mut self) -> Result<(), String> {
        self.readers.iter_mut().try_for_each(Reader::finish)?;
        Reader::new(&self.path, &self.there).finish()
    }
}

/// What rm(1) does where somebody lists the same directory meanwhile: it skipped as many names as it had removed.
#[test]
fn names_removed_while_others_list_skip_nothing() {
    needs!(machine::mounts());
    let layers = layers(1);
    let mount = LaminaMount::new(&layers);
    let mut scene = Scene::new(mount.join("d0"));
    let steps = [Step::List, Step::Piece(0), Step::Piece(0), Step::RemoveShown(0), Step::List, Step::ToTheEnd(0)];
    steps.iter().try_for_each(|step| scene.follow(step)).unwrap();
    scene.end().unwrap();
}

fn readers_see_what_posix_promises(options: &str) {
    let default = ProptestConfig::default();
    let config = ProptestConfig { cases: default.cases / 8, failure_persistence: None, ..default };
    // The same cases each time, as many as PROPTEST_CASES asks for.
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let cases = proptest::collection::vec(step(), 1..60);
    // A directory a case, and as many again for shrinking a failure.
    let dirs = 64;
    let layers = layers(dirs);
    let mount = Lamina::on(&layers).option(options).mount();
    let used = std::cell::Cell::new(0);
    let result = runner.run(&cases, |steps| {
        let at = used.replace((used.get() + 1) % dirs);
        let path = mount.join(&format!("d{at}"));
        restore(&path);
        let mut scene = Scene::new(path);
        let followed = steps.iter().try_for_each(|step| scene.follow(step)).and_then(|()| scene.end());
        followed.map_err(TestCaseError::fail)
    });
    result.unwrap();
}

/// Puts back what the case before changed.
fn restore(path: &Path) {
    for name in 0..NAMES + MORE_NAMES {
        let file = path.join(name.to_string());
        match (file.exists(), name < NAMES) {
            (false, true) => drop(File::create_new(&file).unwrap()),
            (true, false) => fs::remove_file(&file).unwrap(),
            _ => {}
        }
    }
}

#[test]
fn each_reader_of_a_changing_directory_sees_what_stays_exactly_once() {
    needs!(machine::mounts());
    readers_see_what_posix_promises("io=cached");
}
