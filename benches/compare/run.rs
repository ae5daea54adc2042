//! The comparison: for each stack of layers and each workload, the contenders in turn, round by round.
//!
//! Owns the order and what happens when one fails. Invariants: every probe has a fresh mount and a fresh upper layer; a contender
//! that fails is named with its words and left out, the others go on.

use std::collections::HashSet;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use nix::unistd::Uid;
use tempfile::TempDir;

use crate::cli::{ProbeArguments, RunArguments};
use crate::contender::{self, Contender, Place};
use crate::corpus::installed;
use crate::layers::{Scale, Stack};
use crate::measure::{Meter, Pass};
use crate::report::{self, Absent, Results, Sample};
use crate::workload::{self, DEPTHS, Job, Workload};

/// Runs one workload in this process and prints its passes.
pub fn probe(arguments: &ProbeArguments) -> Result<()> {
    let workload = workload::by_name(&arguments.workload).context("no such workload")?;
    let scale = Scale::new(arguments.quick);
    let job = Job { mount: arguments.mount.clone(), scale };
    let mut meter = Meter::new(arguments.server);
    (workload.run)(&mut meter, &job)?;
    println!("{}", serde_json::to_string(&meter.finish())?);
    Ok(())
}

/// Prints what the command line can name.
pub fn list() {
    println!("workloads:");
    for workload in workload::ALL {
        println!("  {:<14} {} (layers: {:?})", workload.name, workload.what, workload.depths);
    }
    println!("contenders:");
    contender::names().for_each(|name| println!("  {name}"));
}

/// Measures what the command line asks for and writes the reports.
pub fn compare(arguments: &RunArguments) -> Result<()> {
    if !Uid::effective().is_root() {
        bail!("mounting overlayfs and io=passthrough need root: sudo make bench");
    }
    let mut comparison = Comparison::prepare(arguments)?;
    let measured = comparison.measure();
    comparison.bar.finish_and_clear();
    let results = comparison.results;
    // What an interrupted run has measured is not thrown away.
    if !results.samples.is_empty() {
        report::write(&results, &arguments.output)?;
    }
    measured
}

struct Comparison<'a> {
    arguments: &'a RunArguments,
    scale: Scale,
    rounds: u32,
    workloads: Vec<&'static Workload>,
    contenders: Vec<Contender>,
    scratch: TempDir,
    stopped: Arc<AtomicBool>,
    bar: ProgressBar,
    results: Results,
}

impl<'a> Comparison<'a> {
    fn prepare(arguments: &'a RunArguments) -> Result<Comparison<'a>> {
        let scale = Scale::new(arguments.quick);
        let exact = |only: &str| workload::by_name(only).is_some();
        let matches = |name: &str, only: &str| name == only || !exact(only) && name.starts_with(only);
        let named = |workload: &&Workload| {
            arguments.only.is_empty() || arguments.only.iter().any(|only| matches(workload.name, only))
        };
        let workloads: Vec<&Workload> = workload::ALL.iter().filter(named).collect();
        if workloads.is_empty() {
            bail!("no workload is called {:?}; see --list", arguments.only);
        }
        let mut results = Results::new(arguments.quick);
        let mut contenders = contender::all(arguments)?;
        contenders.retain(|contender| match contender.missing() {
            None => true,
            Some(reason) => {
                results.leave_out(Absent::everywhere(contender.name, &reason));
                false
            }
        });
        results.contenders = contenders.iter().map(|one| (one.name.to_owned(), one.version.clone())).collect();
        let (present, absent): (Vec<_>, Vec<_>) =
            workloads.into_iter().partition(|workload| workload.needs.is_none_or(installed));
        for workload in absent {
            let reason = format!("{} is not installed", workload.needs.unwrap_or_default());
            results.leave_out(Absent { contender: None, workload: Some(workload.name.into()), layers: None, reason });
        }
        let home = arguments.scratch.as_ref().unwrap_or(&arguments.output);
        fs::create_dir_all(home).with_context(|| home.display().to_string())?;
        let scratch = tempfile::Builder::new().prefix("compare-").tempdir_in(home.canonicalize()?)?;
        let stopped = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&stopped))?;
        }
        let rounds = if arguments.quick { 1 } else { arguments.rounds };
        results.rounds = rounds;
        let bar = ProgressBar::new(0)
            .with_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} (~{eta} left) {msg}")?);
        bar.enable_steady_tick(Duration::from_millis(500));
        Ok(Comparison { arguments, scale, rounds, workloads: present, contenders, scratch, stopped, bar, results })
    }

    fn depths(&self) -> Vec<usize> {
        let wanted = |depth: &usize| self.arguments.layers.is_empty() || self.arguments.layers.contains(depth);
        DEPTHS.iter().copied().filter(wanted).collect()
    }

    fn measure(&mut self) -> Result<()> {
        let depths = self.depths();
        let jobs = |depth| self.workloads.iter().filter(move |workload| workload.depths.contains(depth)).count();
        let jobs: usize = depths.iter().map(jobs).sum();
        self.bar.set_length((jobs * self.contenders.len()) as u64 * u64::from(self.rounds));
        for depth in depths {
            let workloads: Vec<&Workload> =
                self.workloads.iter().copied().filter(|workload| workload.depths.contains(&depth)).collect();
            if workloads.is_empty() {
                continue;
            }
            self.bar.set_message(format!("building {depth} layers"));
            let home = self.scratch.path().join(format!("layers{depth}"));
            let stack = Stack::build(&home, depth, self.scale)?;
            stack.warm()?;
            let mut failed = HashSet::new();
            for workload in workloads {
                self.measure_workload(workload, depth, &stack, &mut failed)?;
            }
            stack.check_unchanged()?;
            fs::remove_dir_all(&home)?;
        }
        Ok(())
    }

    fn measure_workload(
        &mut self,
        workload: &Workload,
        depth: usize,
        stack: &Stack,
        failed: &mut HashSet<&'static str>,
    ) -> Result<()> {
        let contenders = self.contenders.clone();
        let mut failed_here = HashSet::new();
        // One run that is thrown away: it leaves in the layers' caches what this workload asks them for, names that they do
        // not have too, or the first contender would pay for all.
        let measure = |contender: &Contender| {
            measure_once(workload, contender, depth, stack, self.scratch.path(), self.arguments.quick)
        };
        if let Some(first) = contenders.iter().find(|one| !failed.contains(one.name))
            && let Err(Failure::Mount(error) | Failure::Probe(error)) = measure(first)
        {
            eprintln!("compare: {}, {}, thrown away anyway: {error:#}", first.name, workload.name);
        }
        for round in 0..self.rounds {
            for contender in &contenders {
                if self.stopped.load(Ordering::Relaxed) {
                    bail!("interrupted; everything is unmounted, and what was measured is reported");
                }
                self.bar.set_message(format!("{depth} layers, {}, {}", workload.name, contender.name));
                self.bar.inc(1);
                if failed.contains(contender.name) || failed_here.contains(contender.name) {
                    continue;
                }
                let name = contender.name;
                let mut absent = |workload: Option<&Workload>, error: &anyhow::Error| {
                    let workload = workload.map(|workload| workload.name.to_owned());
                    let reason = format!("{error:#}");
                    self.results.leave_out(Absent {
                        contender: Some(name.into()),
                        workload,
                        layers: Some(depth),
                        reason,
                    });
                };
                match measure(contender) {
                    Ok(passes) => {
                        let sample = |pass| Sample::new(workload.name, depth, name, round, pass);
                        self.results.samples.extend(passes.into_iter().map(sample));
                    }
                    Err(_) if self.stopped.load(Ordering::Relaxed) => {}
                    Err(Failure::Mount(error)) => {
                        absent(None, &error);
                        failed.insert(name);
                    }
                    Err(Failure::Probe(error)) => {
                        absent(Some(workload), &error);
                        failed_here.insert(name);
                    }
                }
            }
        }
        Ok(())
    }
}

/// What failed: the contender as such, or this workload on it.
enum Failure {
    Mount(anyhow::Error),
    Probe(anyhow::Error),
}

fn measure_once(
    workload: &Workload,
    contender: &Contender,
    depth: usize,
    stack: &Stack,
    scratch: &Path,
    quick: bool,
) -> Result<Vec<Pass>, Failure> {
    let run =
        tempfile::Builder::new().prefix("run").tempdir_in(scratch).map_err(|error| Failure::Mount(error.into()))?;
    let place = place(run.path(), &scratch.join(format!("index{depth}"))).map_err(Failure::Mount)?;
    let mounted = contender.mount(stack, &place).map_err(Failure::Mount)?;
    let probed = settle(scratch).and_then(|()| start_probe(workload, &place, mounted.server(), quick));
    let unmounted = mounted.unmount();
    let passes = probed.map_err(Failure::Probe)?;
    unmounted.map_err(Failure::Probe)?;
    Ok(passes)
}

fn place(home: &Path, index: &Path) -> Result<Place> {
    let make = |name: &str| -> Result<PathBuf> {
        let path = home.join(name);
        fs::create_dir(&path)?;
        Ok(path)
    };
    Ok(Place { upper: make("upper")?, work: make("work")?, mount: make("mnt")?, index: index.into() })
}

/// What the run before left to be written must not be written during this one.
fn settle(scratch: &Path) -> Result<()> {
    let dir = fs::File::open(scratch)?;
    rustix::fs::syncfs(dir.as_fd()).context("syncfs")
}

fn start_probe(workload: &Workload, place: &Place, server: Option<u32>, quick: bool) -> Result<Vec<Pass>> {
    // Not its path: a build during a run replaces the file.
    let mut command = Command::new("/proc/self/exe");
    command.args(["probe", "--workload", workload.name]);
    command.arg("--mount").arg(&place.mount);
    if let Some(server) = server {
        command.args(["--server", &server.to_string()]);
    }
    if quick {
        command.arg("--quick");
    }
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim().replace('\n', " "));
    }
    serde_json::from_slice(&output.stdout).context("the probe's answer")
}
