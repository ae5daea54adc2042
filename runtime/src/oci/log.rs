//! What the runtime says, to standard error and to the file of `--log`, in runc's two formats.
//!
//! Owns the destination. Invariant: a line is one write, so that lines of two processes do not mix.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `time="..." level=error msg="..."`
    Text,
    /// `{"level":"error","msg":"...","time":"..."}`
    Json,
}

#[derive(Debug)]
struct Destination {
    program: &'static str,
    file: Option<File>,
    format: Format,
    debug: bool,
}

static DESTINATION: OnceLock<Destination> = OnceLock::new();

/// Says who speaks, and opens the file; to be called once, before anything is said.
pub fn open(program: &'static str, path: Option<&Path>, format: Format, debug: bool) -> io::Result<()> {
    let file = path.map(|path| OpenOptions::new().append(true).create(true).open(path)).transpose()?;
    // A second call would change nothing; there is none.
    DESTINATION.get_or_init(|| Destination { program, file, format, debug });
    Ok(())
}

/// Why the verb failed: into the file, and to standard error for callers that look there.
pub fn error(message: &str) {
    line("error", message);
    if DESTINATION.get().is_some_and(|to| to.file.is_some()) {
        say(&format!("{message}\n"));
    }
}

/// Something that the caller should know and that did not stop the verb.
pub fn warn(message: &str) {
    line("warning", message);
}

/// Only with `--debug`.
pub fn debug(message: &str) {
    if DESTINATION.get().is_some_and(|to| to.debug) {
        line("debug", message);
    }
}

fn line(level: &str, message: &str) {
    let to = DESTINATION.get();
    let format = to.map_or(Format::Text, |to| to.format);
    let time = rfc3339(SystemTime::now());
    let quoted = serde_json::Value::from(message).to_string();
    let text = match format {
        Format::Json => format!("{{\"level\":\"{level}\",\"msg\":{quoted},\"time\":\"{time}\"}}\n"),
        Format::Text if to.is_some_and(|to| to.file.is_some()) => {
            format!("time=\"{time}\" level={level} msg={quoted}\n")
        }
        Format::Text => {
            let program = to.map_or("lamina-oci", |to| to.program);
            format!("{program}: {level}: {message}\n")
        }
    };
    match to.and_then(|to| to.file.as_ref()).map(|mut file| file.write_all(text.as_bytes())) {
        None | Some(Err(_)) => say(&text),
        Some(Ok(())) => {}
    }
}

/// Standard error may be closed: then nobody listens, and there is nobody left to tell.
fn say(text: &str) {
    drop(io::stderr().write_all(text.as_bytes()));
}

/// A moment in UTC, with nanoseconds, as RFC 3339 writes it.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = ((since.as_secs() / 86_400) as i64, since.as_secs() % 86_400);
    // Days counted from 1 March of year 0, so that the leap day is the last of its year; 146097 days are 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_nanos()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds| rfc3339(UNIX_EPOCH + Duration::new(seconds, 5));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000005Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000005Z");
        assert_eq!(at(1_735_689_599), "2024-12-31T23:59:59.000000005Z");
    }
}
