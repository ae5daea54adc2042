//! Real trees for the layers: a Python installation, a git repository, C sources, one large file.
//!
//! Owns finding and making them. Invariant: what a tool of the machine lacks leaves its tree out; the workload then says so.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::layers::Scale;

/// C sources of the compile workload.
pub const SOURCES: usize = 60;

/// Where the Python installation lies in the union.
pub const PYTHON: &str = "python";

/// Parts of a standard library that no start-up reads.
const UNUSED: [&str; 7] = ["test", "tests", "idlelib", "site-packages", "dist-packages", "ensurepip", "turtledemo"];

/// Copies the machine's Python over the layers, file k into layer k modulo their number.
pub fn spread_python(lowers: &[PathBuf]) -> Result<()> {
    let Some((program, library)) = find_python() else { return Ok(()) };
    let bin = lowers[0].join(PYTHON).join("bin");
    fs::create_dir_all(&bin)?;
    fs::copy(&program, bin.join("python3")).with_context(|| program.display().to_string())?;
    let name = library.file_name().context("a library directory has a name")?;
    let mut waiting = vec![(library.clone(), Path::new(PYTHON).join("lib").join(name))];
    let mut number = 0;
    while let Some((from, to)) = waiting.pop() {
        for lower in lowers {
            fs::create_dir_all(lower.join(&to))?;
        }
        let mut entries: Vec<_> = fs::read_dir(&from)?.collect::<std::io::Result<_>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let metadata = fs::metadata(entry.path());
            match metadata {
                Ok(found) if found.is_dir() && !UNUSED.iter().any(|unused| *unused == name) => {
                    waiting.push((entry.path(), to.join(name)));
                }
                Ok(found) if found.is_file() => {
                    let target = lowers[number % lowers.len()].join(&to).join(name);
                    fs::copy(entry.path(), &target)?;
                    // Compiled modules are believed by the time of their source.
                    fs::File::options().write(true).open(&target)?.set_modified(found.modified()?)?;
                    number += 1;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// The interpreter and its library, asked of Python itself; the system's before one of a version manager.
fn find_python() -> Option<(PathBuf, PathBuf)> {
    let ask = "import sys, sysconfig; print(sys.executable); print(sysconfig.get_path('stdlib'))";
    ["/usr/bin/python3", "python3"].into_iter().find_map(|name| {
        let output = Command::new(name).args(["-c", ask]).stderr(Stdio::null()).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let mut lines = text.lines();
        let program = fs::canonicalize(lines.next()?).ok()?;
        let library = fs::canonicalize(lines.next()?).ok()?;
        (program.is_file() && library.is_dir()).then_some((program, library))
    })
}

/// The trees of the tools: `tree` with its archive beside it, `repository`, `sources` and `large`.
pub fn build_tools(layer: &Path, scale: Scale) -> Result<()> {
    let tree = layer.join("tree");
    fs::create_dir_all(&tree)?;
    copy_tree(&layer.join(PYTHON).join("lib"), &tree, scale)?;
    shell(layer, "tar cf tree.tar tree")?;
    build_sources(&layer.join("sources"), scale.of(SOURCES))?;
    if installed("git") {
        build_repository(layer)?;
    }
    write_large(&layer.join("large"), scale.large_bytes)
}

fn copy_tree(from: &Path, to: &Path, scale: Scale) -> Result<()> {
    match (from.is_dir(), scale.thinning) {
        (true, 1) => shell(to, &format!("cp -a {}/. .", quoted(from))),
        (true, _) => {
            shell(to, &format!("cp -a {}/*/asyncio {}/*/json {}/*/email .", quoted(from), quoted(from), quoted(from)))
        }
        (false, _) => shell(to, "for i in $(seq 1000); do mkdir -p d$((i % 50)); seq $i > d$((i % 50))/f$i; done"),
    }
}

/// Two commits that differ in every fourth file, with an index that stays valid when inode numbers change. The files are made
/// old at the end: git reads every file again that is as young as its index.
fn build_repository(layer: &Path) -> Result<()> {
    let git = "git -c user.name=bench -c user.email=bench@example.invalid";
    let script = format!(
        "cp -a tree repository && cd repository && {git} init -q -b main . && git config core.checkStat minimal && \
         git config core.trustctime false && git config gc.auto 0 && git config core.untrackedCache false && \
         {git} add -f . && {git} commit -q -m first && \
         find . -path ./.git -prune -o -type f -print | sort | awk 'NR % 4 == 0' | while read -r f; do echo more >> \"$f\"; done && \
         {git} commit -q -a -m second && git branch second && git reset -q --hard HEAD~1 && \
         find . -path ./.git -prune -o -type f -exec touch -d 2020-01-01 {{}} + && git status --short"
    );
    shell(layer, &script)
}

fn build_sources(dir: &Path, count: usize) -> Result<()> {
    fs::create_dir_all(dir.join("include"))?;
    for header in 0..40 {
        let text = format!(
            "#include <stdio.h>\n#include <stdlib.h>\nstatic inline int h{header}(int x) {{ return x + {header}; }}\n"
        );
        fs::write(dir.join(format!("include/h{header}.h")), text)?;
    }
    for source in 0..count {
        let mut text: String = (0..40).map(|header| format!("#include \"h{header}.h\"\n")).collect();
        text.push_str(&format!("int f{source}(int x) {{ return h{}(x) * {source}; }}\n", source % 40));
        fs::write(dir.join(format!("s{source}.c")), text)?;
    }
    Ok(())
}

fn write_large(path: &Path, bytes: u64) -> Result<()> {
    let block: Vec<u8> = (0..1_usize << 20).map(|at| (at * 31 % 251) as u8).collect();
    let mut file = fs::File::create(path)?;
    for _ in 0..bytes >> 20 {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    Ok(())
}

/// Whether a program is in PATH.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Runs a shell script in a directory, and fails with its words.
pub fn shell(dir: &Path, script: &str) -> Result<()> {
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null());
    let output = command.output().context("sh")?;
    if !output.status.success() {
        bail!("`{script}`: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}
