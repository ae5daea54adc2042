//! `lamina-fs index build|show|verify`: the merged view of layers that do not change, in a file.
//!
//! Owns the arguments and the words of the answer. Invariant: a mount whose mountpoint happens to be called `index` still
//! mounts, as none of the three verbs follows.

use indicatif::{ProgressBar, ProgressStyle};
use lamina_fs::index::{Index, IndexError, IndexSummary};
use lamina_fs::options::{Environment, Invocation, OptionError, Options, ProgramName};
use lamina_fs::union::{Config, build_index, verify_index};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The text of `lamina-fs index --help`.
const HELP: &str = "\
lamina-fs index: the merged view of layers that do not change, in one file

A mount with an index answers names, attributes, links, extended attributes and listings of its lower layers from memory,
whatever the number of layers. Build it once after unpacking an image, and pass it to every mount of the same layers.

Usage: lamina-fs index build -o lowerdir=DIR[:DIR...] FILE
       lamina-fs index show FILE [--format text|json]
       lamina-fs index verify FILE [-o lowerdir=DIR[:DIR...]]

  build     read the layers, topmost first as for a mount, and write their index to FILE. A FILE that is there is replaced,
            in one step. Run it as a user who may read everything, and who mounts: marks in trusted.* are seen by root only
  show      what an index holds: layers, counts, and the bytes of each section
  verify    read all of it: checksum, every reference, the tree; with -o also whether it belongs to these layers

  -o OPTION[,OPTION...]   as for a mount; lowerdir and xattr_permissions count here
  --format text|json      how show answers (text)
  -h, --help              print this text

An index belongs to its layers: it is refused when another layer, another order or a layer that was unpacked again is given.
Layers must not change while they are mounted, with an index or without.

Examples:
  lamina-fs index build -o lowerdir=/layers/app:/layers/base /layers/app.index
  lamina-fs index verify /layers/app.index -o lowerdir=/layers/app:/layers/base
  lamina-fs -o lowerdir=/layers/app:/layers/base,index=/layers/app.index /mnt
";

const USAGE: &str = "see lamina-fs index --help";

/// How often the progress bar turns, whatever the walk waits for.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// One call of the command.
#[derive(Debug)]
pub enum IndexCommand {
    /// `--help`
    Help,
    /// `build`
    Build {
        /// The layers.
        config: Box<Config>,
        /// Where the index goes.
        file: PathBuf,
    },
    /// `show`
    Show {
        /// The index.
        file: PathBuf,
        /// `--format json`
        json: bool,
    },
    /// `verify`
    Verify {
        /// The index.
        file: PathBuf,
        /// The layers, where they are given.
        config: Option<Box<Config>>,
    },
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum IndexCommandError {
    /// No file, or a second one.
    #[error("index {verb} takes one file: {USAGE}")]
    File {
        /// The verb.
        verb: String,
    },
    /// Not one of ours.
    #[error("index {verb} knows no {word}: {USAGE}")]
    Word {
        /// The verb.
        verb: String,
        /// The argument.
        word: String,
    },
    /// `build` without layers.
    #[error("index build needs the layers: add -o lowerdir=DIR, or DIR:DIR with the topmost first; {USAGE}")]
    LowerMissing,
    /// An upper layer.
    #[error("an index is of lower layers only: leave upperdir and workdir out")]
    Upper,
    /// A `-o` list that means nothing.
    #[error(transparent)]
    Options(#[from] OptionError),
    /// Anything that happens to an index.
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl IndexCommand {
    /// The call in these arguments; `None` when they are for another command, or for a mount.
    pub fn parse(arguments: &[OsString]) -> Option<Result<IndexCommand, IndexCommandError>> {
        let (first, rest) = arguments.split_first()?;
        if first != "index" {
            return None;
        }
        match rest.split_first().map(|(verb, rest)| (verb.to_str().unwrap_or_default(), rest)) {
            None | Some(("-h" | "--help" | "help", [])) => Some(Ok(IndexCommand::Help)),
            Some((verb @ ("build" | "show" | "verify"), rest)) => Some(IndexCommand::parse_verb(verb, rest)),
            Some(_) => None,
        }
    }

    fn parse_verb(verb: &str, arguments: &[OsString]) -> Result<IndexCommand, IndexCommandError> {
        let (mut file, mut json, mut lists) = (None, false, Vec::new());
        let unknown = |word: &str| IndexCommandError::Word { verb: verb.to_owned(), word: word.to_owned() };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            match word.to_str().unwrap_or_default() {
                "-h" | "--help" => return Ok(IndexCommand::Help),
                "-o" if verb != "show" => lists.push(words.next().ok_or(OptionError::ListMissing)?.clone()),
                "--format" if verb == "show" => json = is_json(words.next()).ok_or_else(|| unknown("such format"))?,
                "--format=json" if verb == "show" => json = true,
                "--format=text" if verb == "show" => json = false,
                option if option.starts_with('-') => return Err(unknown(&format!("option {option}"))),
                _ if file.is_some() => return Err(IndexCommandError::File { verb: verb.to_owned() }),
                _ => file = Some(PathBuf::from(word)),
            }
        }
        let file = file.ok_or_else(|| IndexCommandError::File { verb: verb.to_owned() })?;
        Ok(match verb {
            "build" if lists.is_empty() => return Err(IndexCommandError::LowerMissing),
            "build" => IndexCommand::Build { config: layers(lists)?, file },
            "verify" if lists.is_empty() => IndexCommand::Verify { file, config: None },
            "verify" => IndexCommand::Verify { file, config: Some(layers(lists)?) },
            _ => IndexCommand::Show { file, json },
        })
    }

    /// Does it, and says what was done.
    ///
    /// # Errors
    /// A sentence.
    pub fn run(&self) -> Result<String, IndexCommandError> {
        match self {
            IndexCommand::Help => Ok(HELP.to_owned()),
            IndexCommand::Build { config, file } => Ok(build(config, file)?),
            IndexCommand::Show { file, json: false } => Ok(text(&Index::open_any(file)?.summary())),
            IndexCommand::Show { file, json: true } => Ok(json_text(&Index::open_any(file)?.summary())),
            IndexCommand::Verify { file, config } => {
                let summary = verify_index(file, config.as_deref())?;
                let theirs = if config.is_some() { ", and belongs to these layers" } else { "" };
                Ok(format!("{} is whole: {}{theirs}\n", file.display(), counts(&summary)))
            }
        }
    }
}

fn is_json(format: Option<&OsString>) -> Option<bool> {
    match format?.to_str()? {
        "json" => Some(true),
        "text" => Some(false),
        _ => None,
    }
}

/// The layers of a `-o` list, which is read as that of a mount: the same words name the same layers.
fn layers(lists: Vec<OsString>) -> Result<Box<Config>, IndexCommandError> {
    let environment = Environment { name: ProgramName::LaminaFs, root: false, dot_whiteouts: false };
    let mut arguments: Vec<OsString> = lists.into_iter().flat_map(|list| ["-o".into(), list]).collect();
    arguments.push("/".into());
    match Options::parse(arguments, &environment)? {
        Invocation::Mount(options) if options.upper.is_some() => Err(IndexCommandError::Upper),
        Invocation::Mount(options) => Ok(Box::new(options.union(0))),
        Invocation::Help | Invocation::Version => Err(IndexCommandError::LowerMissing),
    }
}

/// With a progress bar where somebody watches, else without a word.
fn build(config: &Config, file: &Path) -> Result<String, IndexError> {
    let watched = std::io::stderr().is_terminal();
    let bar = if watched { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} names, {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(PROGRESS_INTERVAL);
    let built = build_index(config, file, |names| bar.set_position(names));
    bar.finish_and_clear();
    let summary = built?;
    Ok(match watched {
        true => format!("{}: {}\n", file.display(), counts(&summary)),
        false => String::new(),
    })
}

fn counts(summary: &IndexSummary) -> String {
    let IndexSummary { layers, names, files, directories, file_bytes, .. } = summary;
    let layers = layers.len();
    format!("layers {layers}, names {names}, files {files}, directories among them {directories}, bytes {file_bytes}")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(summary: &IndexSummary) -> String {
    let mut lines: Vec<(String, String)> = vec![
        ("version".into(), summary.version.to_string()),
        ("bytes".into(), summary.file_bytes.to_string()),
        ("checksum".into(), hexadecimal(&summary.checksum)),
        ("names".into(), summary.names.to_string()),
        ("files".into(), summary.files.to_string()),
        ("directories".into(), summary.directories.to_string()),
        ("xattr sets".into(), summary.xattr_sets.to_string()),
    ];
    for (number, layer) in (1..).zip(&summary.layers) {
        let uuid = hexadecimal(&layer.uuid);
        let (ino, seconds, nanoseconds) = (layer.ino, layer.ctime.seconds, layer.ctime.nanoseconds);
        lines.push((
            format!("layer {number}"),
            format!("filesystem {uuid} inode {ino} changed {seconds}.{nanoseconds:09}"),
        ));
    }
    for (section, bytes) in &summary.sections {
        lines.push((format!("bytes of {}", section.replace('_', " ")), bytes.to_string()));
    }
    lines.into_iter().fold(String::new(), |text, (key, value)| text + &format!("{key:<22}{value}\n"))
}

/// Only numbers, constants and hexadecimal: nothing needs escaping.
fn json_text(summary: &IndexSummary) -> String {
    let layers: Vec<String> = summary
        .layers
        .iter()
        .map(|layer| {
            format!(
                r#"{{"filesystem":"{}","inode":{},"changed":{{"seconds":{},"nanoseconds":{}}},"xattr_permissions":{}}}"#,
                hexadecimal(&layer.uuid),
                layer.ino,
                layer.ctime.seconds,
                layer.ctime.nanoseconds,
                layer.overridden
            )
        })
        .collect();
    let sections: Vec<String> =
        summary.sections.iter().map(|(section, bytes)| format!(r#""{section}":{bytes}"#)).collect();
    let mut json = String::new();
    for (key, value) in [
        ("version", u64::from(summary.version)),
        ("bytes", summary.file_bytes),
        ("names", summary.names),
        ("files", summary.files),
        ("directories", summary.directories),
        ("xattr_sets", summary.xattr_sets),
    ] {
        write!(json, r#""{key}":{value},"#).expect("writing to a string does not fail");
    }
    let (checksum, layers, sections) = (hexadecimal(&summary.checksum), layers.join(","), sections.join(","));
    format!("{{{json}\"checksum\":\"{checksum}\",\"layers\":[{layers}],\"sections\":{{{sections}}}}}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Option<Result<IndexCommand, IndexCommandError>> {
        IndexCommand::parse(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn refusal(words: &[&str]) -> String {
        match parse(words) {
            Some(Err(error)) => error.to_string(),
            other => panic!("{words:?} is {other:?}"),
        }
    }

    #[test]
    fn layers_are_named_as_for_a_mount() {
        let Some(Ok(IndexCommand::Build { config, file })) =
            parse(&["index", "build", "-o", "lowerdir=/a:/b\\:c", "out"])
        else {
            panic!("it is a build");
        };
        assert_eq!((config.lowers, file), (vec!["/a".into(), "/b:c".into()], "out".into()));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        assert!(refusal(&["index", "build", "out"]).contains("add -o lowerdir=DIR"));
        assert!(refusal(&["index", "build", "-o", "lowerdir=a"]).contains("takes one file"));
        assert!(refusal(&["index", "build", "-o", "lowerdir=a,upperdir=b,workdir=c", "out"]).contains("upperdir"));
        assert!(refusal(&["index", "show", "a", "b"]).contains("takes one file"));
        assert!(refusal(&["index", "show", "a", "--format", "xml"]).contains("no such format"));
        assert!(refusal(&["index", "verify", "a", "--all"]).contains("no option --all"));
    }

    #[test]
    fn mountpoint_called_index_is_mounted() {
        assert!(parse(&["index", "-o", "lowerdir=a"]).is_none());
        assert!(parse(&["-o", "lowerdir=a", "index"]).is_none());
        assert!(matches!(parse(&["index"]), Some(Ok(IndexCommand::Help))));
    }
}
