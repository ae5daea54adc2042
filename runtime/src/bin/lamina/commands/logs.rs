//! `lamina logs`.

use super::Place;
use clap::Args;
use lamina_runtime::container::clock;
use lamina_runtime::container::follow::{self, Extent};
use lamina_runtime::container::log::{Entry, Stream};
use lamina_runtime::container::status::State;
use lamina_runtime::container::{Error, Result};
use lamina_runtime::oci::log::rfc3339;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Show what a container has said
#[derive(Args, Debug)]
pub struct Logs {
    /// Go on with what it says, until it ends
    #[arg(short, long)]
    follow: bool,
    /// Only the last so many lines; `all` for all
    #[arg(short = 'n', long, value_name = "LINES")]
    tail: Option<String>,
    /// Before each line the time at which it was said
    #[arg(short, long)]
    timestamps: bool,
    /// Only what was said since then: a time (2026-01-31T12:00:00Z), seconds since 1970, or how long ago (90s, 10m, 2h)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Logs {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        let container = place.containers()?.find(&self.container)?;
        let tail = match self.tail.as_deref() {
            None | Some("all" | "-1") => None,
            Some(count) => Some(count.parse().map_err(|_| anyhow::anyhow!("invalid number of lines {count:?}"))?),
        };
        let since = self.since.as_deref().map(moment).transpose()?.map(rfc3339);
        let mut begins = [true, true];
        let extent = Extent { tail, since, follow: self.follow };
        let shown = follow::read(&container, &extent, &mut |entry| self.show(entry, &mut begins));
        match shown {
            // Whoever reads has seen enough.
            Err(Error::Io { cause, .. }) if cause.kind() == io::ErrorKind::BrokenPipe => {}
            outcome => outcome?,
        }
        if let State::Running { fault: Some(fault), .. } = container.state()? {
            eprintln!("lamina: {fault}");
        }
        Ok(0)
    }

    fn show(&self, entry: &Entry<'_>, begins: &mut [bool; 2]) -> Result<()> {
        let begins = &mut begins[usize::from(entry.stream == Stream::Errors)];
        let mut text = Vec::new();
        if self.timestamps && *begins {
            text.extend_from_slice(entry.time.as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(entry.text);
        if entry.whole {
            text.push(b'\n');
        }
        *begins = entry.whole;
        let written = match entry.stream {
            Stream::Output => io::stdout().write_all(&text).and_then(|()| io::stdout().flush()),
            Stream::Errors => io::stderr().write_all(&text),
        };
        written.map_err(Error::io("write", Path::new("standard output")))
    }
}

fn moment(text: &str) -> anyhow::Result<SystemTime> {
    let invalid =
        || anyhow::anyhow!("invalid time {text:?}: write 2026-01-31T12:00:00Z, seconds since 1970, or 90s, 10m, 2h");
    if let Some(moment) = clock::parse(text) {
        return Ok(moment);
    }
    let (digits, unit) = text.split_at(text.len() - text.bytes().rev().take_while(u8::is_ascii_alphabetic).count());
    let count: u64 = digits.parse().map_err(|_| invalid())?;
    let seconds = match unit {
        "" => return UNIX_EPOCH.checked_add(Duration::from_secs(count)).ok_or_else(invalid),
        "s" => count,
        "m" => count.saturating_mul(60),
        "h" => count.saturating_mul(3600),
        _ => return Err(invalid()),
    };
    Ok(SystemTime::now().checked_sub(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH))
}
