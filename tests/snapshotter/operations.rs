//! What an operator calls by hand.

use std::process::Command;

use support::{lamina, needs};

use crate::daemon;

fn answer(words: &[&str]) -> (bool, String) {
    let mut command = Command::new(lamina::snapshotter_binary());
    let path = std::env::var("PATH").unwrap_or_default();
    let beside = lamina::binary().parent().expect("a directory").display();
    let output = command.args(words).env("PATH", format!("{beside}:{path}")).output().expect("run");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn doctor_answers_every_question_in_words() {
    needs!(daemon::missing());
    let home = tempfile::tempdir().unwrap();
    let (usable, text) = answer(&["doctor", "--root", home.path().to_str().unwrap()]);
    assert!(usable, "{text}");
    for question in
        ["kernel", "/dev/fuse", "lamina-fs", "reflinks", "user namespaces", "passthrough", "io_uring", "cgroups"]
    {
        assert!(text.lines().any(|line| line.contains(question)), "{question}: {text}");
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn fsck_names_damage_and_fails() {
    needs!(support::machine::root());
    let home = tempfile::tempdir().unwrap();
    let root = home.path().to_str().unwrap();
    assert!(answer(&["fsck", "--root", root]).0);
    std::fs::write(home.path().join("blobs/sha256").join("0".repeat(64)), "other").unwrap();
    let (whole, text) = answer(&["fsck", "--root", root]);
    assert!(!whole && text.contains("another digest"), "{text}");
}

/// As Debian's containerd reads it; the others are compared with their documentation, see `commands/config.rs`.
#[test]
fn containerd_takes_the_configuration_over() {
    needs!(support::machine::program("containerd"));
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("config.toml");
    for release in ["1.6", "1.7"] {
        let (printed, text) = answer(&["config", "--containerd", release, "--socket", "/run/x", "--root", "/r"]);
        assert!(printed);
        std::fs::write(&file, text).unwrap();
        let dump = support::machine::run("containerd", &["--config", file.to_str().unwrap(), "config", "dump"]);
        for line in
            ["snapshotter = \"lamina\"", "[proxy_plugins.lamina]", "address = \"/run/x\"", "type = \"snapshot\""]
        {
            assert!(dump.lines().any(|found| found.trim() == line), "{release}: {line}:\n{dump}");
        }
    }
}

#[test]
fn manual_and_completions_know_every_verb() {
    for words in [&["man"][..], &["completions", "bash"], &["completions", "zsh"], &["completions", "fish"]] {
        let (printed, text) = answer(words);
        assert!(printed);
        for verb in ["serve", "config", "doctor", "fsck", "image"] {
            assert!(text.contains(verb), "{words:?}: {verb}");
        }
    }
}
