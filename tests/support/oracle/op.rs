//! Operations, and the strategies that generate them. It knows nothing of how they are carried out. Invariant: few names, small sizes, so that
//! operations meet; every value shrinks towards the plainest one.

use proptest::prelude::*;
use proptest::sample::select;

/// A path of the sequences' little world.
pub type Place = &'static str;

/// Number of handles a sequence can hold at once.
pub const SLOTS: usize = 3;

/// Four names, two levels.
pub const PLACES: [Place; 20] = [
    "a", "b", "c", "d", "a/a", "a/b", "a/c", "a/d", "b/a", "b/b", "b/c", "b/d", "c/a", "c/b", "c/c", "c/d", "d/a",
    "d/b", "d/c", "d/d",
];

/// `length` times the same byte: shrinks and prints well.
#[derive(Debug, Clone, Copy)]
pub struct Fill {
    /// The byte.
    pub byte: u8,
    /// How many.
    pub length: usize,
}

impl Fill {
    /// The bytes themselves.
    pub fn bytes(self) -> Vec<u8> {
        vec![self.byte; self.length]
    }
}

/// The flags of renameat2(2) that a sequence uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameMode {
    /// Replaces what is there.
    Plain,
    /// RENAME_NOREPLACE.
    NoReplace,
    /// RENAME_EXCHANGE.
    Exchange,
}

/// One operation. A failing sequence is printed as a list of these, and can be pasted into a test as it stands.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each is the system call of its name; the fields are its arguments")]
pub enum Op {
    Create { path: Place, mode: u32 },
    Write { path: Place, offset: u64, data: Fill },
    Append { path: Place, data: Fill },
    Truncate { path: Place, size: u64 },
    OpenTruncate { path: Place },
    Read { path: Place },
    Chmod { path: Place, mode: u32 },
    Chown { path: Place, uid: u32, gid: u32 },
    SetMtime { path: Place, seconds: i64 },
    Link { from: Place, to: Place },
    Symlink { target: &'static str, path: Place },
    Rename { from: Place, to: Place, mode: RenameMode },
    Unlink { path: Place },
    Rmdir { path: Place },
    Mkdir { path: Place, mode: u32 },
    Mkfifo { path: Place, mode: u32 },
    SetXattr { path: Place, name: &'static str, value: Fill },
    RemoveXattr { path: Place, name: &'static str },
    Open { slot: usize, path: Place, writable: bool },
    ReadHandle { slot: usize, offset: u64, length: usize },
    WriteHandle { slot: usize, offset: u64, data: Fill },
    TruncateHandle { slot: usize, size: u64 },
    ChmodHandle { slot: usize, mode: u32 },
    StatHandle { slot: usize },
    Close { slot: usize },
    DropCaches,
    Remount,
}

fn place() -> impl Strategy<Value = Place> + Clone {
    // Upper level more often: with twenty even places two operations seldom meet.
    prop_oneof![3 => select(&PLACES[..4]), 4 => select(&PLACES[4..12]), 1 => select(&PLACES[12..])]
}

fn fill() -> impl Strategy<Value = Fill> + Clone {
    (select(&b"xyz"[..]), select(&[1_usize, 3, 100, 4096, 20_000][..])).prop_map(|(byte, length)| Fill { byte, length })
}

fn offset() -> impl Strategy<Value = u64> + Clone {
    select(&[0_u64, 1, 50, 4095, 8192, 70_000][..])
}

fn file_mode() -> impl Strategy<Value = u32> + Clone {
    select(&[0o644_u32, 0o600, 0o666, 0o755, 0o444][..])
}

fn xattr_name() -> impl Strategy<Value = &'static str> + Clone {
    select(&["user.one", "user.two"][..])
}

fn content_ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (place(), file_mode()).prop_map(|(path, mode)| Op::Create { path, mode }),
        4 => (place(), offset(), fill()).prop_map(|(path, offset, data)| Op::Write { path, offset, data }),
        2 => (place(), fill()).prop_map(|(path, data)| Op::Append { path, data }),
        2 => (place(), offset()).prop_map(|(path, size)| Op::Truncate { path, size }),
        2 => place().prop_map(|path| Op::OpenTruncate { path }),
        3 => place().prop_map(|path| Op::Read { path }),
    ]
}

fn attribute_ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (place(), file_mode()).prop_map(|(path, mode)| Op::Chmod { path, mode }),
        2 => (place(), select(&[0_u32, 1000, 65534][..]), select(&[0_u32, 100][..])).prop_map(|(path, uid, gid)| Op::Chown { path, uid, gid }),
        3 => (place(), select(&[1_i64, 86_400, 1_500_000_000][..])).prop_map(|(path, seconds)| Op::SetMtime { path, seconds }),
        2 => (place(), xattr_name(), fill()).prop_map(|(path, name, value)| {
            Op::SetXattr { path, name, value: Fill { length: value.length.min(100), ..value } }
        }),
        1 => (place(), xattr_name()).prop_map(|(path, name)| Op::RemoveXattr { path, name }),
    ]
}

fn name_ops() -> impl Strategy<Value = Op> {
    let mode =
        prop_oneof![4 => Just(RenameMode::Plain), 1 => Just(RenameMode::NoReplace), 1 => Just(RenameMode::Exchange)];
    prop_oneof![
        4 => (place(), place()).prop_map(|(from, to)| Op::Link { from, to }),
        1 => (select(&["nowhere", "a/b"][..]), place()).prop_map(|(target, path)| Op::Symlink { target, path }),
        7 => (place(), place(), mode).prop_map(|(from, to, mode)| Op::Rename { from, to, mode }),
        5 => place().prop_map(|path| Op::Unlink { path }),
        3 => place().prop_map(|path| Op::Rmdir { path }),
        4 => (place(), select(&[0o755_u32, 0o700, 0o777][..])).prop_map(|(path, mode)| Op::Mkdir { path, mode }),
        1 => (place(), file_mode()).prop_map(|(path, mode)| Op::Mkfifo { path, mode }),
    ]
}

fn handle_ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (0..SLOTS, place(), any::<bool>()).prop_map(|(slot, path, writable)| Op::Open { slot, path, writable }),
        4 => (0..SLOTS, offset(), select(&[1_usize, 5000, 100_000][..])).prop_map(|(slot, offset, length)| Op::ReadHandle { slot, offset, length }),
        4 => (0..SLOTS, offset(), fill()).prop_map(|(slot, offset, data)| Op::WriteHandle { slot, offset, data }),
        1 => (0..SLOTS, offset()).prop_map(|(slot, size)| Op::TruncateHandle { slot, size }),
        1 => (0..SLOTS, file_mode()).prop_map(|(slot, mode)| Op::ChmodHandle { slot, mode }),
        2 => (0..SLOTS).prop_map(|slot| Op::StatHandle { slot }),
        2 => (0..SLOTS).prop_map(|slot| Op::Close { slot }),
    ]
}

/// One operation.
pub fn one() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => content_ops(),
        12 => attribute_ops(),
        24 => name_ops(),
        18 => handle_ops(),
        2 => Just(Op::Remount),
        2 => Just(Op::DropCaches),
    ]
}

/// A sequence of up to `length_max` operations.
pub fn sequence(length_max: usize) -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(one(), 1..length_max)
}
