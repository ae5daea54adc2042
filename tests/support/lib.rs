//! What the test binaries share. It owns building trees, comparing trees, mounting and unmounting; it knows the on-disk
//! formats from the outside only and never names `lamina_fs`. Invariant: whatever it mounts is unmounted on drop, panic or not.

/// How a directory tree is written down in a test, and built.
pub mod literal;

/// What a directory tree looks like, and how two of them differ.
pub mod tree;

/// The directories of one union: lowers, upper, work and mountpoint.
pub mod layers;

/// A mounted Lamina: the real binary, unmounted on drop.
pub mod lamina;

/// A Debian image of three layers, made once by umoci.
pub mod debian;

/// A registry on loopback, and a line to it that can be cut.
pub mod registry;

/// The kernel's overlayfs, the reference.
pub mod overlay;

/// A server that gives out tokens for a registry.
pub mod token_server;

/// A person at a terminal.
pub mod person;

/// What a soak compares.
pub mod growth;

/// A terminal of tmux.
pub mod tmux;

/// What a directory takes on disk.
pub mod usage;

/// Numbers that look random and can be had again.
pub mod random;

/// What a command said and answered.
pub mod said;

/// What this machine has, and what it lacks.
pub mod machine;

/// A user without privileges, in each way in which such a user can mount.
pub mod rootless;

/// A filesystem in a file, mounted through a loop device.
pub mod image;

/// A small Debian system, what images begin with.
pub mod essential;

/// The random sequences: operations, layer stacks, the model, and the run that compares.
pub mod oracle;

/// The one kernel call that no crate wraps safely: shared memory over a file.
#[expect(unsafe_code, reason = "mmap has no safe wrapper")]
pub mod sys;

pub use lamina::LaminaMount;
pub use layers::Layers;
pub use literal::{
    Entry, Opaque, device, dir, dot_whiteout, fifo, file, link, sparse, symlink, whiteout, xattr_whiteout,
};
pub use overlay::KernelOverlay;
pub use tree::{Tree, View};

/// Ends a test that this machine cannot run, and says why.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        println!("SKIPPED: {}", format!($($reason)*));
        return;
    }};
}

/// Skips the test when a check of [`machine`] answers that something is missing; else the test has mounts of its own from here on, see
/// [`machine::take_own_mounts`].
///
/// `needs!(check, ...)` in a test without a result; `needs!(check, ...; Ok(()))` says what else to return.
#[macro_export]
macro_rules! needs {
    ($($missing:expr),+ $(,)?) => { $crate::needs!($($missing),+; ()) };
    ($($missing:expr),+; $skipped:expr) => {
        $(if let Some(reason) = $missing {
            println!("SKIPPED: {reason}");
            return $skipped;
        })+
        $crate::machine::take_own_mounts();
    };
}
