//! Sequences that once failed, each with its story. The random ones find; these keep.

use support::oracle::op::{Fill, RenameMode};
use support::oracle::stack::{Item, Mark};
use support::oracle::{Op, Stack};

use crate::model::run;

fn file(byte: u8) -> Item {
    Item::File { data: Fill { byte, length: 5 }, mode: 0o644, xattr: true }
}

fn check(layers: Vec<Vec<(&'static str, Item)>>, ops: &[Op]) {
    run(&Stack(layers), ops).unwrap_or_else(|why| panic!("{why}"));
}

/// M1 of union-fs.md: upper/h1 and lower h2 both claimed the lower inode after a remount, and reading gave the wrong one's bytes.
#[test]
fn write_through_one_name_of_a_lower_hard_link_survives_remount() {
    let ops = [
        Op::Write { path: "a", offset: 0, data: Fill { byte: b'x', length: 100 } },
        Op::Read { path: "b" },
        Op::Remount,
        Op::Read { path: "b" },
        Op::Read { path: "a" },
        Op::Append { path: "b", data: Fill { byte: b'y', length: 3 } },
        Op::Read { path: "a" },
    ];
    check(vec![vec![("a", file(b'L')), ("b", Item::Link("a"))]], &ops);
}

/// M2: a handle opened on the lower file went on reading it after another had copied it up.
#[test]
fn handle_opened_before_copy_up_reads_what_is_written_later() {
    let ops = [
        Op::Open { slot: 0, path: "a", writable: false },
        Op::OpenTruncate { path: "a" },
        Op::Write { path: "a", offset: 0, data: Fill { byte: b'x', length: 4096 } },
        Op::DropCaches,
        Op::ReadHandle { slot: 0, offset: 0, length: 5000 },
        Op::StatHandle { slot: 0 },
    ];
    check(vec![vec![("a", file(b'L'))]], &ops);
}

/// An unlinked open file left the inode table, and fstat, ftruncate and fchmod on it answered ENOENT.
#[test]
fn unlinked_open_lower_file_takes_every_operation() {
    let ops = [
        Op::Open { slot: 0, path: "a", writable: true },
        Op::Unlink { path: "a" },
        Op::StatHandle { slot: 0 },
        Op::WriteHandle { slot: 0, offset: 1, data: Fill { byte: b'x', length: 3 } },
        Op::TruncateHandle { slot: 0, size: 4 },
        Op::ChmodHandle { slot: 0, mode: 0o600 },
        Op::DropCaches,
        Op::ReadHandle { slot: 0, offset: 0, length: 5000 },
        Op::StatHandle { slot: 0 },
    ];
    check(vec![vec![("a", file(b'L'))]], &ops);
}

/// `.wh.<dir>` in a middle layer was not honoured for what lay in the directory, once a layer above had made it again.
#[test]
fn files_of_a_deleted_and_recreated_directory_stay_deleted() {
    let plain = || Item::Dir { mode: 0o755, opaque: None };
    for mark in [Mark::Device, Mark::Xattr, Mark::Name] {
        let top = vec![("a", plain()), ("a/b", file(b'N'))];
        let middle = vec![("a", Item::Whiteout(mark))];
        let bottom = vec![("a", plain()), ("a/a", file(b'L'))];
        check(vec![top, middle, bottom], &[Op::Unlink { path: "a/b" }, Op::Remount, Op::Rmdir { path: "a" }]);
    }
}

/// A file renamed over a name that had been a lower directory must not show that directory's content when it becomes one again.
#[test]
fn directory_made_where_a_lower_one_was_is_empty() {
    let plain = Item::Dir { mode: 0o755, opaque: None };
    let ops = [
        Op::Unlink { path: "a/a" },
        Op::Rmdir { path: "a" },
        Op::Rename { from: "b", to: "a", mode: RenameMode::Plain },
        Op::Remount,
        Op::Unlink { path: "a" },
        Op::Mkdir { path: "a", mode: 0o755 },
        Op::Remount,
    ];
    check(vec![vec![("a", plain), ("a/a", file(b'L')), ("b", file(b'M'))]], &ops);
}
