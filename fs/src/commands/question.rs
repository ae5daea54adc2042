//! The arguments of the commands that ask a mount: `NAME MOUNTPOINT [--format table|json]`, and `--reset` where the command has it.
//!
//! Owns how they are written. Must not know what is asked. Invariant: a mount whose mountpoint happens to be called like a command still
//! mounts, as it comes with options that no command has.

use std::ffi::OsString;
use std::path::PathBuf;

/// How the answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Table,
    Json,
}

/// A command that asks.
#[derive(Debug, PartialEq, Eq)]
pub struct Form {
    pub name: &'static str,
    /// Its arguments, as help shows them.
    pub arguments: &'static str,
    pub has_reset: bool,
}

/// One call of such a command.
#[derive(Debug, PartialEq, Eq)]
pub struct Question {
    pub mountpoint: PathBuf,
    pub format: Format,
    pub reset: bool,
}

/// Arguments that do not fit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// None, or a second one.
    #[error("{} takes one mountpoint: write lamina-fs {} {}", .0.name, .0.name, .0.arguments)]
    Mountpoint(&'static Form),
    /// Not one of ours.
    #[error("{} knows no format {:?}: write lamina-fs {} {}", .0.name, .1, .0.name, .0.arguments)]
    Format(&'static Form, String),
    /// Not one of ours.
    #[error("{} knows no option {}: write lamina-fs {} {}", .0.name, .1, .0.name, .0.arguments)]
    Option(&'static Form, String),
}

impl Question {
    /// The call in these arguments; `None` when they are for another command, or for a mount.
    pub fn parse(form: &'static Form, arguments: &[OsString]) -> Option<Result<Question, QuestionError>> {
        let (first, rest) = arguments.split_first()?;
        let of_a_mount = |word: &OsString| {
            let word = word.as_encoded_bytes();
            word.starts_with(b"-") && !word.starts_with(b"--")
        };
        (first == form.name && !rest.iter().any(of_a_mount)).then(|| Question::parse_rest(form, rest))
    }

    fn parse_rest(form: &'static Form, arguments: &[OsString]) -> Result<Question, QuestionError> {
        let (mut mountpoint, mut format, mut reset) = (None, Format::default(), false);
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let text = word.to_string_lossy();
            match text.split_once('=').map_or((&*text, None), |(name, value)| (name, Some(value.to_owned()))) {
                ("--reset", None) if form.has_reset => reset = true,
                ("--format", value) => {
                    let value = value.or_else(|| words.next().map(|word| word.to_string_lossy().into_owned()));
                    format = named(form, value.unwrap_or_default())?;
                }
                (name, _) if name.starts_with("--") => return Err(QuestionError::Option(form, text.into_owned())),
                _ if mountpoint.is_some() => return Err(QuestionError::Mountpoint(form)),
                _ => mountpoint = Some(PathBuf::from(word)),
            }
        }
        let mountpoint = mountpoint.ok_or(QuestionError::Mountpoint(form))?;
        Ok(Question { mountpoint, format, reset })
    }
}

fn named(form: &'static Form, format: String) -> Result<Format, QuestionError> {
    match format.as_str() {
        "table" => Ok(Format::Table),
        "json" => Ok(Format::Json),
        _ => Err(QuestionError::Format(form, format)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static STATS: Form = Form { name: "stats", arguments: "MOUNTPOINT [--reset]", has_reset: true };
    static USAGE: Form = Form { name: "usage", arguments: "MOUNTPOINT", has_reset: false };

    fn parse(form: &'static Form, words: &[&str]) -> Option<Result<Question, QuestionError>> {
        Question::parse(form, &words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn format_is_taken_in_both_spellings() {
        let json = Question { mountpoint: "/mnt".into(), format: Format::Json, reset: true };
        assert_eq!(parse(&STATS, &["stats", "/mnt", "--format", "json", "--reset"]), Some(Ok(json)));
        let json = Question { mountpoint: "/mnt".into(), format: Format::Json, reset: false };
        assert_eq!(parse(&STATS, &["stats", "--format=json", "/mnt"]), Some(Ok(json)));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        assert_eq!(parse(&STATS, &["stats"]), Some(Err(QuestionError::Mountpoint(&STATS))));
        assert_eq!(parse(&STATS, &["stats", "a", "b"]), Some(Err(QuestionError::Mountpoint(&STATS))));
        let xml = QuestionError::Format(&STATS, "xml".into());
        assert_eq!(parse(&STATS, &["stats", "a", "--format", "xml"]), Some(Err(xml)));
        let reset = QuestionError::Option(&USAGE, "--reset".into());
        assert_eq!(reset.to_string(), "usage knows no option --reset: write lamina-fs usage MOUNTPOINT");
        assert_eq!(parse(&USAGE, &["usage", "a", "--reset"]), Some(Err(reset)));
    }

    #[test]
    fn mountpoint_called_like_a_command_is_mounted() {
        assert_eq!(parse(&STATS, &["stats", "-o", "lowerdir=a"]), None);
        assert_eq!(parse(&USAGE, &["-o", "lowerdir=a", "usage"]), None);
    }
}
