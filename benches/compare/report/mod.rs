//! From samples to something a person reads.
//!
//! Owns what was measured and the figures taken from it: medians, and ratios inside the same round. Invariant: a ratio never
//! compares figures of two runs.

mod html;
mod json;
mod plot;
mod table;
mod targets;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::contender::REFERENCE;
use crate::measure::{Pass, median};

/// One pass of one contender in one round.
#[derive(Debug, Serialize)]
pub struct Sample {
    /// Which workload, on how many layers, whose, and when.
    pub workload: String,
    pub layers: usize,
    pub contender: String,
    pub round: u32,
    #[serde(flatten)]
    pub pass: Pass,
}

impl Sample {
    /// Labels a pass.
    pub fn new(workload: &str, layers: usize, contender: &str, round: u32, pass: Pass) -> Sample {
        Sample { workload: workload.into(), layers, contender: contender.into(), round, pass }
    }
}

/// Something that was not measured, and why. `None` means all.
#[derive(Debug, Serialize)]
pub struct Absent {
    pub contender: Option<String>,
    pub workload: Option<String>,
    pub layers: Option<usize>,
    pub reason: String,
}

impl Absent {
    /// A contender that takes no part at all.
    pub fn everywhere(contender: &str, reason: &str) -> Absent {
        Absent { contender: Some(contender.into()), workload: None, layers: None, reason: reason.into() }
    }

    /// For the reports.
    pub fn sentence(&self) -> String {
        let who = self.contender.as_deref().unwrap_or("every contender");
        let what = self.workload.as_deref().map(|workload| format!(", {workload}")).unwrap_or_default();
        let depth = self.layers.map(|layers| format!(", {layers} layers")).unwrap_or_default();
        format!("{who}{what}{depth}: {}", self.reason)
    }
}

/// All of a run.
#[derive(Debug, Serialize)]
pub struct Results {
    /// Seconds since 1970, and the machine.
    pub time: u64,
    pub machine: String,
    /// A smoke run.
    pub quick: bool,
    pub rounds: u32,
    /// Name and version of each that took part.
    pub contenders: Vec<(String, String)>,
    pub absent: Vec<Absent>,
    pub samples: Vec<Sample>,
}

/// What the rounds of one contender say of one row at one depth. Nanoseconds per operation.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    pub wall: f64,
    pub wall_min: f64,
    pub wall_max: f64,
    pub cpu: f64,
}

/// A row at a depth, with the figures by contender.
#[derive(Debug)]
pub struct Line<'a> {
    pub row: &'a str,
    pub layers: usize,
    pub figures: BTreeMap<&'a str, Figure>,
}

impl Results {
    /// Nothing yet.
    pub fn new(quick: bool) -> Results {
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let machine = machine();
        Results { time, machine, quick, rounds: 0, contenders: Vec::new(), absent: Vec::new(), samples: Vec::new() }
    }

    /// Notes and says what will be missing.
    pub fn leave_out(&mut self, absent: Absent) {
        eprintln!("compare: left out: {}", absent.sentence());
        self.absent.push(absent);
    }

    /// Rows in the order in which they were measured, each at its depths.
    pub fn lines(&self) -> Vec<Line<'_>> {
        let mut keys: Vec<(&str, usize)> = Vec::new();
        for sample in &self.samples {
            let key = (sample.pass.row.as_str(), sample.layers);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let first = |row: &str| self.samples.iter().position(|sample| sample.pass.row == row);
        keys.sort_by_key(|(row, layers)| (first(row), *layers));
        keys.into_iter().map(|(row, layers)| self.line(row, layers)).collect()
    }

    fn line<'a>(&'a self, row: &'a str, layers: usize) -> Line<'a> {
        let mut figures = BTreeMap::new();
        for (contender, _) in &self.contenders {
            let passes = || self.passes(row, layers, contender);
            let wall: Vec<f64> = passes().map(|(_, pass)| pass.wall_per_operation()).collect();
            let cpu: Vec<f64> = passes().map(|(_, pass)| pass.cpu_per_operation()).collect();
            if !wall.is_empty() {
                let (wall_min, wall_max) = bounds(&wall);
                figures
                    .insert(contender.as_str(), Figure { wall: median(&wall), wall_min, wall_max, cpu: median(&cpu) });
            }
        }
        Line { row, layers, figures }
    }

    fn passes<'a>(&'a self, row: &'a str, layers: usize, contender: &'a str) -> impl Iterator<Item = (u32, &'a Pass)> {
        let samples = self.samples.iter();
        let samples = samples.filter(move |sample| sample.layers == layers && sample.contender == contender);
        samples.filter(move |sample| sample.pass.row == row).map(|sample| (sample.round, &sample.pass))
    }

    /// How long a contender took over what another took: the median of the ratios of the rounds, so that both sides of each
    /// saw the same minute of the machine.
    pub fn ratio(&self, row: &str, layers: usize, contender: &str, to: &str) -> Option<f64> {
        let base: Vec<(u32, f64)> =
            self.passes(row, layers, to).map(|(round, pass)| (round, pass.wall_per_operation())).collect();
        let of = |round| base.iter().find(|(other, _)| *other == round).map(|(_, wall)| *wall);
        let passes = self.passes(row, layers, contender);
        let ratios: Vec<f64> =
            passes.filter_map(|(round, pass)| Some(pass.wall_per_operation() / of(round)?)).collect();
        (!ratios.is_empty()).then(|| median(&ratios))
    }

    /// The ratio to the kernel's overlayfs.
    pub fn ratio_to_kernel(&self, line: &Line<'_>, contender: &str) -> Option<f64> {
        self.ratio(line.row, line.layers, contender, REFERENCE)
    }
}

fn bounds(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)))
}

/// Kernel, processors and time, in one line.
fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("Linux {}, {processors} processors", kernel.trim())
}

/// Prints the table and writes it, the data and the page into a directory.
pub fn write(results: &Results, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    let text = table::render(results);
    println!("{text}");
    for (name, content) in
        [("compare.md", text), ("compare.json", json::render(results)?), ("compare.html", html::render(results)?)]
    {
        let path = dir.join(name);
        fs::write(&path, content).with_context(|| path.display().to_string())?;
    }
    eprintln!("compare: wrote compare.md, compare.json and compare.html to {}", dir.display());
    Ok(())
}

/// Nanoseconds as a person reads them.
pub fn human(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns < 1e3 => (ns, "ns"),
        ns if ns < 1e6 => (ns / 1e3, "us"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    match value {
        value if value < 10.0 => format!("{value:.2} {unit}"),
        value if value < 100.0 => format!("{value:.1} {unit}"),
        value => format!("{value:.0} {unit}"),
    }
}
