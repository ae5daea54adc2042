//! Third-party suites on a mounted stack. They need root, for the kernel's overlayfs is the measure.
//!
//! `make suites-deps` installs them; `make compare-suites` prints the same figures for the rivals.

mod filesystem; // what is mounted, and how
mod fsx; // data: reads, writes, mappings
mod pjdfstest; // names, modes, owners, times, errors
mod tool; // where the suites are installed

use std::error::Error;

use filesystem::Filesystem;
use fsx::Subject;

/// A case counts against us when it fails twice: some compare time stamps, and lose when the clock has not moved.
#[test]
fn pjdfstest_fails_nowhere_that_overlayfs_passes() -> Result<(), Box<dyn Error>> {
    if !tool::privileged() {
        return Ok(());
    }
    let lamina = Filesystem::lamina("")?;
    let kernel = pjdfstest::run(&Filesystem::Overlayfs, &[])?;
    let ours = pjdfstest::run(&lamina, &[])?;
    for (name, report) in [("overlayfs", &kernel), ("lamina-fs", &ours)] {
        println!(
            "{name}: {} passed, {} failed, {} skipped",
            report.passed.len(),
            report.failed.len(),
            report.skipped.len()
        );
        println!("{name} fails: {:#?}", report.failed);
    }
    let suspects: Vec<&String> = kernel.passed.difference(&ours.passed).collect();
    if suspects.is_empty() {
        return Ok(());
    }
    let again = pjdfstest::run(&lamina, &suspects)?;
    let worse: Vec<&&String> = suspects.iter().filter(|name| !again.passed.contains(**name)).collect();
    assert!(worse.is_empty(), "fails on lamina-fs, passes on overlayfs: {worse:#?}");
    Ok(())
}

fn every_seed_passes(options: &str, subject: Subject) -> Result<(), Box<dyn Error>> {
    seeds_pass(&fsx::SEEDS, options, subject)
}

fn seeds_pass(seeds: &[u64], options: &str, subject: Subject) -> Result<(), Box<dyn Error>> {
    if !tool::privileged() {
        return Ok(());
    }
    let lamina = Filesystem::lamina(options)?;
    for seed in seeds {
        if let Err(said) = fsx::run(&lamina, subject, *seed)? {
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
