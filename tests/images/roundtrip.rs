//! Random layers: what a changeset of each shows, stacked, is what the layers themselves show; and writing it again gives the same
//! bytes. Mounted by the kernel, so that its view is the judge.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use lamina_fs::layer::{ApplyOptions, Mountpoints, OverrideStat, apply, diff};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use support::oracle::stack::stack;
use support::oracle::{Formats, Stack};
use support::tree::{Tree, View};
use support::{Entry, KernelOverlay, Layers, machine, needs};

fn changeset(layer: &Path) -> Vec<u8> {
    let root = File::open(layer).expect("open");
    let mut bytes = Vec::new();
    diff(root.as_fd(), OverrideStat::Off, &Mountpoints::default(), &mut bytes)
        .unwrap_or_else(|error| panic!("diff of {}: {error}", layer.display()));
    bytes
}

fn written(changeset: &[u8], at: &Path) {
    std::fs::create_dir(at).expect("mkdir");
    let root = File::open(at).expect("open");
    let applied = apply(root.as_fd(), changeset, &ApplyOptions::default());
    let applied = applied.unwrap_or_else(|error| panic!("apply: {error}"));
    assert!(applied.usage.inodes > 0);
}

fn shown(layers: &Layers) -> Tree {
    let mount = KernelOverlay::with(layers, "index=off,redirect_dir=off,metacopy=off");
    let tree = Tree::read_despite_d_ino(&layers.merged);
    drop(mount);
    tree
}

fn check(stack: &Stack, formats: Formats) -> Result<(), TestCaseError> {
    let literals = stack.literals(formats);
    let literals: Vec<&[Entry]> = literals.iter().map(Vec::as_slice).collect();
    let before = Layers::new(&literals);
    let mut after = Layers::new(&[]);
    for (at, lower) in before.lowers.iter().enumerate() {
        let bytes = changeset(lower);
        let copy = after.home().join(format!("copy{at}"));
        written(&bytes, &copy);
        prop_assert!(changeset(&copy) == bytes, "layer {at} is written differently the second time");
        after.lowers.push(copy);
    }
    if formats == Formats::Kernel {
        let lines = shown(&before).differences(&shown(&after), View::ALL);
        prop_assert!(lines.is_empty(), "{}", lines.join("\n"));
    }
    Ok(())
}

fn run(cases: u32, formats: Formats) {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 500, ..Config::default() };
    let outcome = TestRunner::new(config).run(&stack(), |stack| check(&stack, formats));
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// The two that are compared are made in different seconds.
#[test]
fn root_of_a_mount_is_not_dated_by_the_clock() {
    needs!(KernelOverlay::missing());
    let layers = Layers::new(&[&[support::file("f", "x")]]);
    assert_eq!(shown(&layers).0["."].mtime, Some(Layers::MADE));
}

#[test]
fn changesets_of_random_layers_show_the_same_tree() {
    needs!(KernelOverlay::missing());
    run(u32::try_from(machine::number_from_env("LAMINA_CASES", 48)).unwrap_or(u32::MAX), Formats::Kernel);
}

#[test]
fn changesets_are_the_same_again_whatever_the_marks() {
    needs!(machine::root());
    run(64, Formats::All { privileged: true });
}
