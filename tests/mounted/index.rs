//! The index answers for the lower layers: nobody can tell, but for the system calls that are not made.

use std::collections::BTreeMap;
use std::process::Command;

use support::lamina::{Lamina, binary};
use support::{LaminaMount, Layers, Tree, View, dir, file, machine, needs, symlink};

fn layers() -> Layers {
    Layers::new(&[
        &[dir("d"), file("d/top", "top"), symlink("d/link", "top")],
        &[dir("d"), file("d/top", "hidden"), file("d/low", "low"), dir("d/sub"), file("d/sub/x", "x")],
    ])
}

/// Builds the index of the layers beside them.
fn build(layers: &Layers) -> std::path::PathBuf {
    let file = layers.home().join("index");
    let done = Command::new(binary())
        .args(["index", "build", "-o", &layers.lower_option()])
        .arg(&file)
        .output()
        .expect("lamina-fs runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    file
}

fn indexed(layers: &Layers, index: &std::path::Path) -> LaminaMount {
    Lamina::on(layers).option(&format!("index={}", index.display())).mount()
}

#[test]
fn a_mount_with_an_index_shows_the_same_tree() {
    needs!(machine::mounts());
    let layers = layers();
    let plain = Tree::read(LaminaMount::new(&layers).path());
    let mut mount = indexed(&layers, &build(&layers));
    plain.assert_same(&Tree::read(mount.path()), View::ALL);

    std::fs::write(mount.join("d/low"), "changed").unwrap();
    std::fs::remove_file(mount.join("d/top")).unwrap();
    std::fs::rename(mount.join("d/link"), mount.join("d/moved")).unwrap();
    let changed = Tree::read(mount.path());
    mount.remount();
    changed.assert_same(&Tree::read(mount.path()), View::ALL);
    mount.unmount();
    // What was written is an ordinary upper layer: it reads the same without the index.
    changed.assert_same(&Tree::read(LaminaMount::new(&layers).path()), View::ALL);
    layers.assert_lowers_untouched();
}

#[test]
fn an_index_of_other_layers_is_refused() {
    needs!(machine::mounts());
    let (layers, others) = (layers(), layers());
    let index = build(&others);
    let refused = Lamina::on(&layers).option(&format!("index={}", index.display())).run();
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("index"), "{}", refused.stderr);
}

#[test]
fn a_cut_index_is_refused() {
    needs!(machine::mounts());
    let layers = layers();
    let index = build(&layers);
    let bytes = std::fs::read(&index).unwrap();
    std::fs::write(&index, &bytes[..bytes.len() / 2]).unwrap();
    let refused = Lamina::on(&layers).option(&format!("index={}", index.display())).run();
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
}

/// Requests and system calls by opcode since the last time.
fn spent(mount: &LaminaMount) -> BTreeMap<String, (u64, u64)> {
    let mountpoint = mount.path().to_str().unwrap();
    let json = machine::run(binary().to_str().unwrap(), &["stats", mountpoint, "--format", "json", "--reset"]);
    let field = |line: &str, name: &str| {
        let rest = line.split_once(&format!("\"{name}\":"))?.1;
        Some(rest.split([',', '}']).next()?.trim_matches('"').to_owned())
    };
    let number = |line: &str, name: &str| field(line, name)?.parse().ok();
    let row = |line| Some((field(line, "opcode")?, (number(line, "count")?, number(line, "calls")?)));
    json.lines().filter_map(row).collect()
}

/// Everything that can be asked of what is below `d` without its data: listing, attributes, targets, extended attributes.
fn ask_for_everything(mount: &LaminaMount) {
    for dir in ["d", "d/sub"] {
        for entry in std::fs::read_dir(mount.join(dir)).unwrap() {
            let path = entry.unwrap().path();
            assert!(path.symlink_metadata().is_ok());
            let quoted = path.display();
            machine::shell(&format!(
                "getfattr -h -d -m- '{quoted}' >/dev/null; getfattr -h -n user.none '{quoted}' || true"
            ));
        }
        assert!(!mount.join(dir).join("missing").exists());
    }
    assert!(std::fs::read_link(mount.join("d/link")).is_ok());
}

/// One thread: a request is done with, its system calls are counted, before the request that reads the counters is taken. Among several
/// threads a reader can come between an answer and its counting; a run on a busy machine met that.
#[test]
fn with_an_index_lower_entries_cost_no_system_call() {
    needs!(machine::mounts());
    let layers = layers();
    let plain = Lamina::on(&layers).option("threaded=0").mount();
    ask_for_everything(&plain);
    let without: u64 = spent(&plain).values().map(|(_, calls)| calls).sum();
    assert!(without > 10, "the counter counts: {without}");
    drop(plain);

    let index = build(&layers);
    let mount = Lamina::on(&layers).option(&format!("index={},threaded=0", index.display())).mount();
    // The root lies in the upper layer too, which is asked for its names.
    assert!(mount.join("d").exists());
    spent(&mount);
    ask_for_everything(&mount);
    let spent = spent(&mount);
    for opcode in ["LOOKUP", "READDIRPLUS", "READLINK", "GETXATTR", "LISTXATTR"] {
        let (count, calls) = spent.get(opcode).copied().unwrap_or_default();
        assert!(count > 0, "{opcode} was asked for: {spent:?}");
        assert_eq!(calls, 0, "{opcode}: {spent:?}");
    }
    assert!(spent.values().all(|(_, calls)| *calls == 0), "{spent:?}");
}
