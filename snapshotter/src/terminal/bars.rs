//! Progress bars: one a blob, on standard error, and none where nobody watches.

use crate::digest::Digest;
use crate::image::{Report, Stage};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};

/// Digits of a digest that a bar shows.
const SHOWN_DIGITS: usize = 12;

/// The bars of one command.
#[derive(Debug)]
pub struct Bars {
    all: Option<MultiProgress>,
    bars: Mutex<HashMap<(Digest, Stage), ProgressBar>>,
}

impl Bars {
    /// Bars where standard error is a terminal, unless the user wants none.
    pub fn new(quiet: bool) -> Bars {
        let all = (!quiet && std::io::stderr().is_terminal()).then(MultiProgress::new);
        Bars { all, bars: Mutex::new(HashMap::new()) }
    }

    /// Takes a report, from any thread.
    pub fn report(&self, report: Report) {
        let Some(all) = &self.all else { return };
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        match report {
            Report::Begin { blob, stage, bytes } => {
                let bar = all.add(bytes.map_or_else(ProgressBar::no_length, ProgressBar::new));
                let template = "{prefix} {bar:30} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}";
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style);
                }
                bar.set_prefix(format!("{:<8}{}", verb(stage), &blob.hex()[..SHOWN_DIGITS]));
                bars.insert((blob, stage), bar);
            }
            Report::Advance { blob, stage, bytes } => {
                if let Some(bar) = bars.get(&(blob, stage)) {
                    bar.inc(bytes);
                }
            }
            Report::End { blob, stage } => {
                if let Some(bar) = bars.remove(&(blob, stage)) {
                    bar.finish();
                }
            }
        }
    }
}

fn verb(stage: Stage) -> &'static str {
    match stage {
        Stage::Fetch => "fetch",
        Stage::Unpack => "unpack",
        Stage::Send => "send",
    }
}
