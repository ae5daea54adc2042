//! Changes of an image's configuration in the words of a Dockerfile, as `docker commit -c` takes them.
//!
//! Owns the words and their grammar. Invariant: a change is understood whole, or refused before anything is changed; what the configuration
//! has beside the changed fields stays, whoever defined it.

use super::error::ImageError;
use serde_json::{Map, Value, json};
use std::str::FromStr;

/// What starts a command that is not written as a list.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// The arguments of the entrypoint, or the command where there is none.
    Cmd(Vec<String>),
    /// What is run.
    Entrypoint(Vec<String>),
    /// Variables, each replacing one of its name.
    Env(Vec<(String, String)>),
    /// Ports, as `80/tcp`.
    Expose(Vec<String>),
    /// Labels.
    Label(Vec<(String, String)>),
    /// User, and group where given.
    User(String),
    /// Working directory; relative to the one before.
    Workdir(String),
    /// Directories that a container keeps outside of its layers.
    Volume(Vec<String>),
    /// What ends it.
    StopSignal(String),
}

impl FromStr for Edit {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Edit, ImageError> {
        parse(text).map_err(|cause| ImageError::BadEdit { text: text.to_owned(), cause })
    }
}

fn parse(text: &str) -> Result<Edit, String> {
    let text = text.trim();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    if rest.is_empty() {
        return Err("it needs a word of a Dockerfile and its argument".into());
    }
    Ok(match word.to_ascii_uppercase().as_str() {
        "CMD" => Edit::Cmd(command(rest)),
        "ENTRYPOINT" => Edit::Entrypoint(command(rest)),
        "ENV" => Edit::Env(pairs(rest)?),
        "EXPOSE" => Edit::Expose(words(rest)?.into_iter().map(port).collect::<Result<_, _>>()?),
        "LABEL" => Edit::Label(pairs(rest)?),
        "USER" => Edit::User(rest.to_owned()),
        "WORKDIR" => Edit::Workdir(rest.to_owned()),
        "VOLUME" => Edit::Volume(list(rest).map_or_else(|| words(rest), Ok)?),
        "STOPSIGNAL" => Edit::StopSignal(rest.to_owned()),
        other => {
            let known = "CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, WORKDIR, VOLUME and STOPSIGNAL";
            return Err(format!("{other} cannot be changed so: {known} can"));
        }
    })
}

/// A list in JSON, or none.
fn list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// A list in JSON, or a line for a shell.
fn command(text: &str) -> Vec<String> {
    list(text).unwrap_or_else(|| SHELL.iter().copied().chain([text]).map(str::to_owned).collect())
}

/// `NAME=VALUE ...`, or the older `NAME VALUE`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let words = words(text)?;
    let first = words.first().map(String::as_str).unwrap_or_default();
    if !first.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace).ok_or_else(|| format!("{text} has no value"))?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{word:?} is not NAME=VALUE")),
    };
    words.into_iter().map(pair).collect()
}

/// Words with the quotes of a shell taken away.
fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', None | Some('"')) => {
                let next = letters.next().ok_or("it ends with a backslash")?;
                word.get_or_insert_default().push(next);
            }
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (end, Some(begin)) if end == begin => quote = None,
            (space, None) if space.is_whitespace() => words.extend(word.take()),
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".into());
    }
    words.extend(word);
    Ok(words)
}

fn port(word: String) -> Result<String, String> {
    let (number, protocol) = word.split_once('/').unwrap_or((&word, "tcp"));
    match number.parse::<u16>() {
        Ok(number) if number > 0 && ["tcp", "udp", "sctp"].contains(&protocol) => Ok(format!("{number}/{protocol}")),
        _ => Err(format!("{word:?} is no port such as 80 or 53/udp")),
    }
}

impl Edit {
    /// Changes the object `config` of a configuration.
    pub fn apply(&self, config: &mut Map<String, Value>) {
        match self {
            Edit::Cmd(words) => put(config, "Cmd", json!(words)),
            Edit::Entrypoint(words) => {
                // The command was meant for the entrypoint before: docker forgets it too.
                config.remove("Cmd");
                put(config, "Entrypoint", json!(words));
            }
            Edit::Env(pairs) => {
                let mut variables: Vec<String> =
                    config.get("Env").and_then(|list| serde_json::from_value(list.clone()).ok()).unwrap_or_default();
                for (name, value) in pairs {
                    variables.retain(|variable| variable.split('=').next() != Some(name));
                    variables.push(format!("{name}={value}"));
                }
                put(config, "Env", json!(variables));
            }
            Edit::Expose(ports) => ports.iter().for_each(|port| insert(config, "ExposedPorts", port, json!({}))),
            Edit::Label(pairs) => pairs.iter().for_each(|(name, value)| insert(config, "Labels", name, json!(value))),
            Edit::User(user) => put(config, "User", json!(user)),
            Edit::Workdir(dir) => {
                let before = config.get("WorkingDir").and_then(Value::as_str).filter(|dir| !dir.is_empty());
                let path = std::path::Path::new("/").join(before.unwrap_or("/")).join(dir);
                put(config, "WorkingDir", json!(path));
            }
            Edit::Volume(paths) => paths.iter().for_each(|path| insert(config, "Volumes", path, json!({}))),
            Edit::StopSignal(signal) => put(config, "StopSignal", json!(signal)),
        }
    }
}

fn put(config: &mut Map<String, Value>, key: &str, value: Value) {
    config.insert(key.to_owned(), value);
}

/// Into an object that may be missing or null.
fn insert(config: &mut Map<String, Value>, key: &str, name: &str, value: Value) {
    let object = config.entry(key).or_insert(Value::Null);
    if !object.is_object() {
        *object = json!({});
    }
    if let Some(object) = object.as_object_mut() {
        object.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(before: Value, edits: &[&str]) -> Value {
        let mut config = before.as_object().unwrap().clone();
        edits.iter().for_each(|edit| edit.parse::<Edit>().unwrap().apply(&mut config));
        Value::Object(config)
    }

    #[test]
    fn words_of_a_dockerfile_change_their_fields_and_nothing_else() {
        let before =
            json!({"Env": ["PATH=/bin", "A=old"], "Labels": null, "Cmd": ["sh"], "Custom": 1, "WorkingDir": "/srv"});
        let edits = [
            "ENV A=new B=\"two words\"",
            "env C plain words",
            "LABEL k=v",
            "EXPOSE 80 53/udp",
            "USER app:staff",
            "WORKDIR sub",
            "VOLUME [\"/data\", \"/more\"]",
            "VOLUME /last",
            "STOPSIGNAL SIGINT",
            "ENTRYPOINT [\"/entry\"]",
            "CMD echo $HOME",
        ];
        let expected = json!({
            "Env": ["PATH=/bin", "A=new", "B=two words", "C=plain words"],
            "Labels": {"k": "v"},
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            "User": "app:staff",
            "WorkingDir": "/srv/sub",
            "Volumes": {"/data": {}, "/more": {}, "/last": {}},
            "StopSignal": "SIGINT",
            "Entrypoint": ["/entry"],
            "Cmd": ["/bin/sh", "-c", "echo $HOME"],
            "Custom": 1,
        });
        assert_eq!(edited(before, &edits), expected);
    }

    #[test]
    fn an_entrypoint_forgets_the_command_that_was_meant_for_the_one_before() {
        assert_eq!(
            edited(json!({"Cmd": ["x"]}), &["ENTRYPOINT run it"]),
            json!({"Entrypoint": ["/bin/sh", "-c", "run it"]})
        );
    }

    #[test]
    fn what_is_not_understood_is_refused_with_the_cause() {
        for (text, part) in [
            ("RUN make", "RUN cannot be changed so"),
            ("CMD", "needs a word"),
            ("ENV A", "has no value"),
            ("ENV A=\"b", "not closed"),
            ("ENV A=b c", "not NAME=VALUE"),
            ("EXPOSE many", "no port"),
            ("EXPOSE 0", "no port"),
            ("LABEL a=b\\", "backslash"),
        ] {
            let error = text.parse::<Edit>().unwrap_err().to_string();
            assert!(error.contains(part) && error.contains(text.split(' ').next().unwrap()), "{error}");
        }
    }
}
