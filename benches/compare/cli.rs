//! The command line: what a person can ask for, and what it means. Invariant: parsing opens nothing.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Mounts Lamina, the kernel's overlayfs and the FUSE rivals side by side on the same layers, and measures them.
#[derive(Debug, Parser)]
#[command(
    name = "compare",
    version,
    after_long_help = "\
Needs root: overlayfs and io=passthrough do. A rival that is not installed is named and left out.

Every measurement is made on a fresh mount with a fresh upper layer, in a process of its own. \"cold\" means that the mount \
is new while the layers lie in the page cache; \"warm\" is the second pass over the same mount. The contenders take turns \
(A B C A B C ...), so that a slow minute of the machine hits all of them.

Examples:
  make bench                                         everything; more than an hour
  compare --quick                                    does it work? some minutes, figures good for nothing
  compare --only stat --only find --layers 64        two workloads on 64 layers
  compare --contender lamina --contender overlayfs   a name or the beginning of one
  compare --list                                     what --only and --contender can name"
)]
pub struct Arguments {
    /// What else than measuring.
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub run: RunArguments,
}

/// What to measure, where, and how often.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// How often each measurement is repeated, the contenders taking turns
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// A smoke run: one round, a tenth of the files
    #[arg(long)]
    pub quick: bool,
    /// Only the workload of this name, else those whose name begins so; may be repeated
    #[arg(long, value_name = "WORKLOAD")]
    pub only: Vec<String>,
    /// Only these numbers of layers: 1, 16 or 64; may be repeated
    #[arg(long, value_name = "N")]
    pub layers: Vec<usize>,
    /// Only the contender of this name, else those whose name begins so; may be repeated. Ratios need overlayfs
    #[arg(long, value_name = "NAME")]
    pub contender: Vec<String>,
    /// Name the workloads and contenders, and end
    #[arg(long)]
    pub list: bool,
    /// Where the reports go
    #[arg(long, default_value = "target/bench", value_name = "DIR")]
    pub output: PathBuf,
    /// Where the layers are built and removed again; its filesystem is what is measured [default: the output directory]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// Lamina's program [default: beside this one]
    #[arg(long, env = "LAMINA_FS", value_name = "FILE")]
    pub lamina: Option<PathBuf>,
    /// fuse-overlayfs 1.x
    #[arg(long, default_value = "/usr/bin/fuse-overlayfs", value_name = "FILE")]
    pub fuse_overlayfs_1: PathBuf,
    /// fuse-overlayfs 2.0, which `make rivals-deps` builds
    #[arg(long, env = "FUSE_OVERLAYFS_2", default_value = "target/rivals/bin/fuse-overlayfs", value_name = "FILE")]
    pub fuse_overlayfs_2: PathBuf,
    /// unionfs-fuse
    #[arg(long, default_value = "/usr/bin/unionfs", value_name = "FILE")]
    pub unionfs: PathBuf,
}

/// The other faces of this program.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs one workload on one mount and prints what it cost; the comparison starts itself so
    #[command(hide = true)]
    Probe(ProbeArguments),
}

/// What a probe is told.
#[derive(Debug, Args)]
pub struct ProbeArguments {
    /// Name of the workload.
    #[arg(long)]
    pub workload: String,
    /// The mounted union.
    #[arg(long)]
    pub mount: PathBuf,
    /// The server's process.
    #[arg(long)]
    pub server: Option<i32>,
    /// Fewer operations.
    #[arg(long)]
    pub quick: bool,
}
