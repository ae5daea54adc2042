//! What people run: archives, copies, version control, a compiler, an interpreter. One operation is one run.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Job;
use crate::corpus::{PYTHON, shell};
use crate::measure::Meter;

pub fn python(meter: &mut Meter, job: &Job) -> Result<()> {
    let home = job.mount.join(PYTHON);
    for row in ["python start cold", "python start warm"] {
        meter.pass(row, || {
            let mut command = Command::new(home.join("bin/python3"));
            command.args(["-c", "import json, asyncio, email"]).stdin(Stdio::null());
            // Nothing of the machine's own Python, and nothing written into the mount.
            command
                .env_clear()
                .env("PYTHONHOME", &home)
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .env("PYTHONNOUSERSITE", "1");
            let status = command.status().context("python3 from the mount")?;
            match status.success() {
                true => Ok(1),
                false => bail!("python3 from the mount: {status}"),
            }
        })?;
    }
    Ok(())
}

fn run(meter: &mut Meter, row: &str, job: &Job, script: &str) -> Result<()> {
    meter.pass(row, || {
        shell(&job.mount, script)?;
        Ok(1)
    })
}

pub fn du(meter: &mut Meter, job: &Job) -> Result<()> {
    run(meter, "du cold", job, "du -s files")?;
    run(meter, "du warm", job, "du -s files")
}

pub fn tar(meter: &mut Meter, job: &Job) -> Result<()> {
    // GNU tar does not read the files when it sees that the archive is /dev/null.
    run(meter, "tar c cold", job, "tar cf - tree | cat >/dev/null")?;
    run(meter, "tar c warm", job, "tar cf - tree | cat >/dev/null")
}

pub fn cp(meter: &mut Meter, job: &Job) -> Result<()> {
    run(meter, "cp -a", job, "cp -a tree copy")
}

pub fn untar(meter: &mut Meter, job: &Job) -> Result<()> {
    run(meter, "untar", job, "mkdir untarred && tar xf tree.tar -C untarred")
}

pub fn chmod_tree(meter: &mut Meter, job: &Job) -> Result<()> {
    run(meter, "chmod -R", job, "chmod -R go-rwx tree")
}

pub fn git(meter: &mut Meter, job: &Job) -> Result<()> {
    let status = "cd repository && test -z \"$(git status --porcelain)\"";
    run(meter, "git status cold", job, status)?;
    run(meter, "git status warm", job, status)?;
    run(meter, "git checkout", job, "cd repository && git checkout -q second")
}

pub fn compile(meter: &mut Meter, job: &Job) -> Result<()> {
    run(meter, "compile", job, "cd sources && for f in s*.c; do gcc -Iinclude -c \"$f\" -o \"${f%.c}.o\"; done")
}
