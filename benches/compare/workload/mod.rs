//! What is measured: a table of workloads, each a function that makes passes over one mount.
//!
//! Owns names, depths and order. Must not know who serves the mount. Invariant: what a workload needs first (files to rename,
//! names to ask for) is made outside of its passes.

mod data;
mod fio;
mod metadata;
mod tools;

use std::path::PathBuf;

use anyhow::Result;

use crate::layers::Scale;
use crate::measure::Meter;

/// Numbers of layers of the workloads whose cost may depend on them.
pub const DEPTHS: &[usize] = &[1, 16, 64];

/// The depth of workloads that the layers' number should not matter to.
const SHALLOW: &[usize] = &[1];

/// One workload.
#[derive(Debug)]
pub struct Workload {
    /// As `--only` calls it.
    pub name: &'static str,
    /// One sentence for `--list` and the reports: what one operation is.
    pub what: &'static str,
    /// Numbers of layers it runs on.
    pub depths: &'static [usize],
    /// A program without which it cannot run.
    pub needs: Option<&'static str>,
    /// Makes its passes.
    pub run: fn(&mut Meter, &Job) -> Result<()>,
}

/// What a workload is given.
#[derive(Debug)]
pub struct Job {
    /// The union.
    pub mount: PathBuf,
    /// How much to do.
    pub scale: Scale,
}

macro_rules! workload {
    ($name:literal, $depths:ident, $needs:expr, $run:expr, $what:literal) => {
        Workload { name: $name, what: $what, depths: $depths, needs: $needs, run: $run }
    };
}

/// All of them, in the order of the report.
pub const ALL: &[Workload] = &[
    workload!("stat", DEPTHS, None, metadata::stat, "stat(2) of every small file by path"),
    workload!(
        "miss",
        DEPTHS,
        None,
        metadata::miss,
        "stat(2) of as many names that do not exist, in the same directories"
    ),
    workload!("find", DEPTHS, None, metadata::find, "list every directory and lstat(2) every entry, as find -ls does"),
    workload!("open", DEPTHS, None, data::open, "open(2), read(2) of 4 KiB and close(2) of lower files"),
    workload!("create", DEPTHS, None, data::create, "create a file in a merged directory, write(2) 4 KiB, close(2)"),
    workload!(
        "rename",
        DEPTHS,
        None,
        metadata::rename,
        "rename(2) a file of the upper layer inside its merged directory"
    ),
    workload!("chmod", DEPTHS, None, metadata::chmod, "chmod(2) a lower file of 4 KiB for the first time (copy-up)"),
    workload!("append", DEPTHS, None, data::append, "open a lower file of 4 KiB, append 100 bytes, close(2) (copy-up)"),
    workload!("unlink", DEPTHS, None, metadata::unlink, "unlink(2) a lower file (whiteout)"),
    workload!(
        "writes",
        DEPTHS,
        None,
        data::writes,
        "write(2) of 100 bytes on one descriptor; its close(2) is counted in"
    ),
    workload!(
        "python",
        DEPTHS,
        Some("python3"),
        tools::python,
        "python3 -c 'import json, asyncio, email', all from the mount"
    ),
    workload!("du", DEPTHS, None, tools::du, "du -s of the small files, per run"),
    workload!("read-large", SHALLOW, None, data::read_large, "sequential read(2) of the large file (1 GiB), per MiB"),
    workload!(
        "first-write",
        SHALLOW,
        None,
        data::first_write,
        "open the large lower file, pwrite(2) 4 KiB, close(2) (copy-up)"
    ),
    workload!("tar", SHALLOW, Some("tar"), tools::tar, "tar c of the Python library to /dev/null, by way of a pipe"),
    workload!("cp", SHALLOW, None, tools::cp, "cp -a of the Python library inside the mount"),
    workload!("untar", SHALLOW, Some("tar"), tools::untar, "tar x of the Python library into the mount"),
    workload!("chmod-r", SHALLOW, None, tools::chmod_tree, "chmod -R of the Python library (copies all of it up)"),
    workload!(
        "git",
        SHALLOW,
        Some("git"),
        tools::git,
        "git status, cold and warm, then a checkout that changes every fourth file"
    ),
    workload!(
        "compile",
        SHALLOW,
        Some("gcc"),
        tools::compile,
        "gcc -c of 60 sources with 40 headers each, objects into the mount"
    ),
    workload!("fio-read", SHALLOW, Some("fio"), fio::read, "fio: 128 KiB sequential reads of the large file"),
    workload!("fio-randread", SHALLOW, Some("fio"), fio::random_read, "fio: 4 KiB random reads of the large file"),
    workload!(
        "fio-mmap",
        SHALLOW,
        Some("fio"),
        fio::mapped_read,
        "fio: 4 KiB random reads of the large file through mmap(2)"
    ),
    workload!(
        "fio-write",
        SHALLOW,
        Some("fio"),
        fio::write,
        "fio: 128 KiB sequential writes of a new file, fsync(2) at the end"
    ),
    workload!(
        "fio-randwrite",
        SHALLOW,
        Some("fio"),
        fio::random_write,
        "fio: 4 KiB random writes of an upper file, fsync(2) at the end"
    ),
];

/// The workload of this name.
pub fn by_name(name: &str) -> Option<&'static Workload> {
    ALL.iter().find(|workload| workload.name == name)
}
