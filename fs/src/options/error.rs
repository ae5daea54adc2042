//! Why a command line is refused.
//!
//! Owns the sentences. Invariant: each says what is wrong, in which word, and what to write instead.

use crate::union::IdMapError;

/// A command line that cannot be mounted; its text is the whole sentence for the user.
#[derive(Debug, thiserror::Error)]
pub enum OptionError {
    /// No positional argument.
    #[error("no mountpoint was given: put the directory to mount on last; see --help")]
    MountpointMissing,
    /// `-o` at the end of the line.
    #[error("-o stands alone: write a list of options after it, such as -o lowerdir=/a:/b")]
    ListMissing,
    /// No `lowerdir`.
    #[error("no lower layer was given: add -o lowerdir=DIR, or DIR:DIR with the topmost first")]
    LowerMissing,
    /// `lowerdir=/a::/b`
    #[error("lowerdir names an empty path: separate the layers by single colons, and write \\: for a colon in a path")]
    LowerEmpty,
    /// `lowerdir=//plugin/data/path`
    #[error(
        "the lower layer `{layer}` names a plugin, which is not supported: unpack it and name its directory, with a single leading slash"
    )]
    PluginLayer {
        /// The layer as given.
        layer: String,
    },
    /// `upperdir` alone.
    #[error("upperdir needs a work directory: add -o workdir=DIR, an empty directory on the filesystem of upperdir")]
    WorkMissing,
    /// `io=passthrough,writeback=1`
    #[error(
        "io=passthrough and writeback=1 exclude each other: what the kernel writes by itself it does not collect; leave one of them out"
    )]
    PassthroughWriteback,
    /// `redirect_dir` with anything but `off`.
    #[error("fuse-overlayfs only supports redirect_dir=off, and so does lamina-fs: leave the option out")]
    RedirectDir,
    /// `plugins=...`
    #[error("the option `plugins` is not supported: unpack such layers and name their directories in lowerdir")]
    Plugins,
    /// An option that needs a value has none.
    #[error("the option `{word}` needs a value: write {word}=VALUE")]
    ValueMissing {
        /// The option.
        word: String,
    },
    /// A value that means nothing.
    #[error("the option `{word}={value}` is not understood: the value must be {expected}")]
    Value {
        /// The option.
        word: String,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A mapping that does not parse.
    #[error("the option `{word}` is refused: {cause}")]
    Mapping {
        /// The option.
        word: String,
        /// What the mapping's own parser says.
        cause: IdMapError,
    },
}
