//! Third-party suites on a mounted stack, beside the kernel's overlayfs, which is the measure, and so as root.
//!
//! - `rootless`: the same as a user without privileges.
//!
//! `make suites-deps` installs them; `make compare-suites` prints the same figures for the rivals.

mod filesystem; // what is mounted, and how
mod fsx; // data: reads, writes, mappings
mod pjdfstest; // names, modes, owners, times, errors
mod rootless;
mod tool; // where the suites are installed

use std::error::Error;

use filesystem::Filesystem;
use fsx::Subject;
use support::{machine, needs};

/// No case fails on `ours` that passes on `reference`, in one run of each.
fn fails_nowhere_else(reference: &Filesystem, ours: &Filesystem) -> Result<(), Box<dyn Error>> {
    let (theirs, ours) = ((reference, pjdfstest::run(reference)?), (ours, pjdfstest::run(ours)?));
    for (filesystem, report) in [&theirs, &ours] {
        let (passed, failed, skipped) = (report.passed.len(), report.failed.len(), report.skipped.len());
        println!("{filesystem:?}: {passed} passed, {failed} failed, {skipped} skipped; fails: {:#?}", report.failed);
    }
    assert!(!theirs.1.passed.is_empty(), "nothing ran on {reference:?}");
    // A case that skips finds a limit of the filesystem (links of one file) too high to be reached, which the kernel's may not be.
    let worse: Vec<&String> = theirs.1.passed.intersection(&ours.1.failed).collect();
    let lost: Vec<&String> = theirs
        .1
        .passed
        .iter()
        .filter(|name| !ours.1.passed.contains(*name) && !ours.1.skipped.contains(*name))
        .collect();
    assert_eq!(lost, worse, "cases without an outcome on Lamina");
    assert!(worse.is_empty(), "fails on Lamina, passes on {reference:?}: {worse:#?}");
    Ok(())
}

#[test]
fn pjdfstest_fails_nowhere_that_overlayfs_passes() -> Result<(), Box<dyn Error>> {
    needs!(machine::mounts(), machine::filesystem("overlay"); Ok(()));
    fails_nowhere_else(&Filesystem::Overlayfs { options: "" }, &Filesystem::lamina("")?)
}

fn every_seed_passes(options: &str, subject: Subject) -> Result<(), Box<dyn Error>> {
    seeds_pass(&fsx::SEEDS, options, subject)
}

fn seeds_pass(seeds: &[u64], options: &str, subject: Subject) -> Result<(), Box<dyn Error>> {
    needs!(machine::mounts(); Ok(()));
    let lamina = Filesystem::lamina(options)?;
    for &seed in seeds {
        if let Err(said) = fsx::run(&lamina, subject, seed)? {
            panic!("fsx, seed {seed}, {subject:?} file, options {options:?}:\n{said}");
        }
    }
    Ok(())
}

#[test]
fn fsx_passes_on_new_file() -> Result<(), Box<dyn Error>> {
    every_seed_passes("", Subject::New)
}

#[test]
fn fsx_passes_on_lower_file() -> Result<(), Box<dyn Error>> {
    every_seed_passes("", Subject::Lower)
}

#[test]
fn fsx_passes_on_new_file_with_writeback() -> Result<(), Box<dyn Error>> {
    every_seed_passes("writeback=1", Subject::New)
}

#[test]
fn fsx_passes_on_lower_file_with_writeback() -> Result<(), Box<dyn Error>> {
    every_seed_passes("writeback=1", Subject::Lower)
}

/// Two seeds, for most of the way is the kernel's own.
fn passes_with_passthrough(subject: Subject) -> Result<(), Box<dyn Error>> {
    if let Some(reason) = support::machine::passthrough() {
        println!("SKIPPED: {reason}");
        return Ok(());
    }
    seeds_pass(&fsx::SEEDS[..2], "io=passthrough", subject)
}

#[test]
fn fsx_passes_on_new_file_with_passthrough() -> Result<(), Box<dyn Error>> {
    passes_with_passthrough(Subject::New)
}

#[test]
fn fsx_passes_on_lower_file_with_passthrough() -> Result<(), Box<dyn Error>> {
    passes_with_passthrough(Subject::Lower)
}
