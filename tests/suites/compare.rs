//! `make compare-suites`: the suites on the kernel's overlayfs, on both generations of fuse-overlayfs, and on lamina-fs.
//!
//! Prints one Markdown table, then the failing cases. A figure here is never a verdict: the tests in `main.rs` are.

mod filesystem;
mod fsx;
mod pjdfstest;
mod tool;

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use filesystem::Filesystem;
use fsx::Subject;
use support::machine;

/// The programs that are present, each with the version it states.
fn contestants() -> Vec<(String, Filesystem)> {
    let mut contestants = vec![
        ("overlayfs".to_owned(), Filesystem::Overlayfs { options: "" }),
        ("the directory below".to_owned(), Filesystem::Plain),
    ];
    let rival = env::var_os("LAMINA_RIVAL").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/rivals/bin/fuse-overlayfs"),
        PathBuf::from,
    );
    for path in [PathBuf::from("/usr/bin/fuse-overlayfs"), rival] {
        match version(&path) {
            Ok(version) => contestants.push((version, Filesystem::Program { path, options: String::new() })),
            Err(error) => eprintln!("left out: {}: {error}", path.display()),
        }
    }
    for options in ["", "writeback=1", "io=passthrough"] {
        if options == "io=passthrough"
            && let Some(reason) = support::machine::passthrough()
        {
            eprintln!("left out: lamina-fs {options}: {reason}");
            continue;
        }
        match Filesystem::lamina(options) {
            Ok(lamina) => contestants.push((format!("lamina-fs {options}").trim().to_owned(), lamina)),
            Err(error) => eprintln!("left out: {error}"),
        }
    }
    contestants
}

fn version(program: &Path) -> Result<String, Box<dyn Error>> {
    let output = Command::new(program).arg("--version").output()?;
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().find(|line| line.starts_with("fuse-overlayfs")).unwrap_or("unknown");
    Ok(line.replace(": version", ""))
}

fn fsx_failures(filesystem: &Filesystem, subject: Subject) -> Result<String, Box<dyn Error>> {
    let mut failures = Vec::new();
    for seed in fsx::SEEDS {
        if let Err(said) = fsx::run(filesystem, subject, seed)? {
            eprintln!("fsx, {filesystem:?}, {subject:?}, seed {seed}:\n{said}\n");
            failures.push(seed.to_string());
        }
    }
    Ok(match failures.len() {
        0 => format!("0 of {}", fsx::SEEDS.len()),
        count => format!("{count} of {} (seeds {})", fsx::SEEDS.len(), failures.join(", ")),
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(reason) = machine::root() {
        return Err(reason.into());
    }
    println!("fsx: {} operations a seed, with mmap. pjdfstest: in a directory of a lower layer.\n", fsx::OPERATIONS);
    println!(
        "| filesystem | pjdfstest passed | failed | skipped | fails, overlayfs passes | fsx failures, new file | lower file |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut measure = None;
    let mut details = Vec::new();
    for (name, filesystem) in contestants() {
        let report = pjdfstest::run(&filesystem)?;
        let kernel = measure.get_or_insert_with(|| report.passed.clone());
        let worse: Vec<String> = kernel.difference(&report.passed).cloned().collect();
        let (new, lower) = (fsx_failures(&filesystem, Subject::New)?, fsx_failures(&filesystem, Subject::Lower)?);
        let (passed, failed, skipped) = (report.passed.len(), report.failed.len(), report.skipped.len());
        println!("| {name} | {passed} | {failed} | {skipped} | {} | {new} | {lower} |", worse.len());
        details.push((name, report.failed, worse));
    }
    for (name, failed, worse) in details {
        println!("\n{name} fails, and overlayfs passes: {worse:#?}\n{name} fails: {failed:#?}");
    }
    Ok(())
}
