//! Every word of a `-o` list, described once.
//!
//! Owns what help, manual page and completions say. Invariant, checked by a test: the parser takes each word in it.

/// One option, in the words of the help text.
#[derive(Debug)]
pub struct Description {
    /// The word.
    pub word: &'static str,
    /// What its value is, empty where it takes none.
    pub value: &'static str,
    /// One line.
    pub text: &'static str,
}

/// Options that belong together.
#[derive(Debug)]
pub struct Group {
    /// Heading.
    pub title: &'static str,
    /// The options, in reading order.
    pub options: &'static [Description],
}

const fn option(word: &'static str, value: &'static str, text: &'static str) -> Description {
    Description { word, value, text }
}

/// All options.
pub const GROUPS: [Group; 6] = [
    Group {
        title: "Layers",
        options: &[
            option(
                "lowerdir",
                "DIR[:DIR...]",
                "read-only layers, topmost first; write \\: for a colon in a path (required)",
            ),
            option("upperdir", "DIR", "the layer that takes all changes; without it the mount is read-only"),
            option("workdir", "DIR", "empty directory on the filesystem of upperdir; required with it"),
            option("redirect_dir", "off", "the only value there is"),
        ],
    },
    Group {
        title: "Owners and modes",
        options: &[
            option("uidmapping", "HOST:MOUNT:LEN[:...]", "show user HOST of the layers as MOUNT, and so on"),
            option("gidmapping", "HOST:MOUNT:LEN[:...]", "the same for groups"),
            option("squash_to_root", "", "show user and group 0 for everything"),
            option("squash_to_uid", "UID", "show this user for everything"),
            option("squash_to_gid", "GID", "show this group for everything"),
            option(
                "xattr_permissions",
                "0|1|2",
                "keep owner and mode in an xattr: 1 security.fuseoverlayfs.override_stat, 2 user.containers.override_stat",
            ),
            option("static_nlink", "", "every directory shows one link"),
        ],
    },
    Group {
        title: "Extended attributes",
        options: &[option("noacl", "", "no POSIX ACLs"), option("noxattrs", "0|1", "1: no extended attributes at all")],
    },
    Group {
        title: "Caching, durability, threads",
        options: &[
            option("timeout", "SECONDS", "how long the kernel may believe names and attributes (1000000000)"),
            option("index", "FILE", "the merged view of the lower layers, made by lamina-fs index build"),
            option(
                "io",
                "cached|passthrough",
                "passthrough: the kernel reads and writes upper files by itself (needs root of the host)",
            ),
            option("writeback", "0|1", "1: the kernel collects small writes before it sends them"),
            option("fsync", "0|1", "0: fsync(2) does nothing"),
            option("volatile", "", "as fsync=0; after a crash the upper layer must be thrown away"),
            option("threaded", "0|1", "0: one request at a time, except for long copies"),
        ],
    },
    Group {
        title: "Mount",
        options: &[
            option("ro", "", "read-only (rw: writable, the default)"),
            option("allow_other", "", "let every user in (the default for root)"),
            option("allow_root", "", "let root in"),
            option("default_permissions", "", "the kernel checks permissions (always on)"),
            option("nosuid", "", "set-user-id bits have no effect (suid: they do)"),
            option("nodev", "", "device nodes have no effect (dev: they do)"),
            option("noexec", "", "no programs can be run (exec: they can)"),
            option(
                "noatime",
                "",
                "reading changes no times (the default); also atime, relatime, strictatime, nodiratime, diratime",
            ),
            option("sync", "", "all writes are synchronous (async: they are not); also dirsync"),
            option("fsname", "NAME", "the source in the mount table"),
            option("subtype", "NAME", "the type in the mount table is fuse.NAME"),
            option("auto_unmount", "", "unmount even if the server is killed (needs fusermount3)"),
        ],
    },
    Group {
        title: "Accepted, without effect",
        options: &[
            option("xino", "off|auto|on", "inode numbers are stable in any case"),
            option("ino32_t", "", "see xino"),
            option("fast_ino", "0|1", "see xino"),
            option("context", "\"LABEL\"", "SELinux labels are set by the kernel"),
        ],
    },
];

/// Words of other mount programs that change nothing here.
const ACCEPTED: [&str; 32] = [
    "context",
    "fscontext",
    "defcontext",
    "rootcontext",
    "seclabel",
    "volatile",
    "redirect_dir",
    "splice_read",
    "splice_write",
    "splice_move",
    "no_splice_read",
    "no_splice_write",
    "no_splice_move",
    "kernel_cache",
    "auto_cache",
    "max_write",
    "max_read",
    "max_readahead",
    "max_background",
    "max_threads",
    "max_idle_threads",
    "idle_threads",
    "clone_fd",
    "big_writes",
    "nonempty",
    "defaults",
    "_netdev",
    "nofail",
    "auto",
    "noauto",
    "user",
    "users",
];

/// Whether a word is known and means nothing here.
pub(super) fn is_accepted(word: &str) -> bool {
    ACCEPTED.contains(&word) || word.starts_with("x-")
}
