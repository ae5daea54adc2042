//! Names of images, as Docker made them: `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`.
//!
//! Owns the grammar (distribution/reference) and the familiar forms. Invariant: a value is complete: it has a registry, a
//! repository, and a tag or a digest.

use super::error::ImageError;
use crate::digest::Digest;
use std::fmt;
use std::str::FromStr;

/// The registry of names that have none.
pub const DOCKER_HUB: &str = "docker.io";
/// An older name of it.
const DOCKER_HUB_OLD: &str = "index.docker.io";
/// Where Docker Hub keeps repositories of one component.
const LIBRARY: &str = "library/";
const LATEST: &str = "latest";
/// The longest registry and repository together.
const NAME_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;

/// A complete name of an image.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host, and port where it is not the usual one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path in the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; with a digest it says nothing.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that the manifest or index must have.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same with another tag, and without a digest.
    ///
    /// # Errors
    /// [`ImageError::BadReference`].
    pub fn with_tag(&self, tag: &str) -> Result<Reference, ImageError> {
        check_tag(tag).map_err(|cause| bad(tag, cause))?;
        Ok(Reference { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// As people write it: without what goes without saying.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        match full.strip_prefix("docker.io/") {
            Some(rest) => rest.strip_prefix(LIBRARY).unwrap_or(rest).to_owned(),
            None => full,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(out, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(out, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Reference, ImageError> {
        parse(text).map_err(|cause| bad(text, cause))
    }
}

fn bad(text: &str, cause: &'static str) -> ImageError {
    ImageError::BadReference { text: text.chars().take(NAME_BYTES_MAX).collect(), cause }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            (rest, Some(digest.parse().map_err(|_| "what follows @ must be sha256: and 64 hexadecimal digits")?))
        }
        None => (text, None),
    };
    // A colon after the last slash is that of a tag; one before it is that of a port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("64 hexadecimal digits are an image's id, not its name");
    }
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if is_registry(first) => (first, rest.to_owned()),
        _ => (DOCKER_HUB, name.to_owned()),
    };
    let registry = if registry == DOCKER_HUB_OLD { DOCKER_HUB } else { registry };
    check_registry(registry)?;
    let repository = match registry == DOCKER_HUB && !repository.contains('/') {
        true => format!("{LIBRARY}{repository}"),
        false => repository,
    };
    check_repository(&repository)?;
    if registry.len() + repository.len() + 1 > NAME_BYTES_MAX {
        return Err("registry and repository have more than 255 bytes together");
    }
    let tag = match (tag, digest) {
        (None, None) => Some(LATEST),
        (tag, _) => tag,
    };
    Ok(Reference { registry: registry.to_owned(), repository, tag: tag.map(str::to_owned), digest })
}

/// Whether the part before the first slash is a host and not the start of a repository.
fn is_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn check_registry(registry: &str) -> Result<(), &'static str> {
    const CAUSE: &str = "the registry must be a host name or address, with a port where needed";
    // Of an address of version 6, the colons stand in brackets.
    let (host, rest) = match registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            let valid = !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':');
            if !valid {
                return Err(CAUSE);
            }
            (None, rest)
        }
        None => match registry.split_once(':') {
            Some((host, _)) => (Some(host), &registry[host.len()..]),
            None => (Some(registry), ""),
        },
    };
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let inner = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
        inner && !bytes.is_empty() && bytes[0] != b'-' && bytes[bytes.len() - 1] != b'-'
    };
    let port = match rest.strip_prefix(':') {
        Some(port) => port.parse::<u16>().is_ok(),
        None => rest.is_empty(),
    };
    match host.is_none_or(|host| host.split('.').all(label)) && port {
        true => Ok(()),
        false => Err(CAUSE),
    }
}

fn check_repository(repository: &str) -> Result<(), &'static str> {
    for component in repository.split('/') {
        let bytes = component.as_bytes();
        if bytes.is_empty() {
            return Err("a component of the repository is empty");
        }
        if bytes.iter().any(u8::is_ascii_uppercase) {
            return Err("the repository must be in lower case");
        }
        // Runs between letters and digits: one dot, one or two underscores, any number of dashes.
        let runs = component.split(|at: char| at.is_ascii_lowercase() || at.is_ascii_digit());
        let separators: Vec<&str> = runs.collect();
        let ends =
            separators.first().is_some_and(|run| run.is_empty()) && separators.last().is_some_and(|run| run.is_empty());
        let inner =
            separators.iter().all(|run| matches!(*run, "" | "." | "_" | "__") || run.bytes().all(|byte| byte == b'-'));
        if !ends || !inner {
            return Err("the repository may hold letters, digits, and between them . _ __ or dashes");
        }
    }
    Ok(())
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = tag.as_bytes();
    match bytes.first().is_some_and(|first| word(*first))
        && bytes.len() <= TAG_BYTES_MAX
        && bytes.iter().all(|byte| word(*byte) || matches!(byte, b'.' | b'-'))
    {
        true => Ok(()),
        false => Err("a tag has 1 to 128 letters, digits, _ . and -, and does not begin with one of the last two"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn full(text: &str) -> String {
        text.parse::<Reference>().unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
    }

    #[test]
    fn what_goes_without_saying_is_added() {
        for (text, expected) in [
            ("debian", "docker.io/library/debian:latest"),
            ("debian:12", "docker.io/library/debian:12"),
            ("index.docker.io/debian", "docker.io/library/debian:latest"),
            ("user/app", "docker.io/user/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("UPPER/app", "UPPER/app:latest"),
            ("localhost:5000/app:1", "localhost:5000/app:1"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("quay.io/a/b__c/d-e.f:V1_x", "quay.io/a/b__c/d-e.f:V1_x"),
        ] {
            assert_eq!(full(text), expected);
        }
        assert_eq!(full(&format!("debian@{DIGEST}")), format!("docker.io/library/debian@{DIGEST}"));
        assert_eq!(full(&format!("debian:12@{DIGEST}")), format!("docker.io/library/debian:12@{DIGEST}"));
    }

    #[test]
    fn familiar_names_leave_out_what_is_added() {
        for text in ["debian:12", "user/app:1", "quay.io/a/b:c", "localhost:5000/app:1"] {
            assert_eq!(text.parse::<Reference>().map(|reference| reference.familiar()).expect("valid"), text);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let id = "0".repeat(64);
        let long = "a".repeat(250);
        for text in [
            "",
            ":1",
            "a:",
            "a//b",
            "/a",
            "a/",
            "a/B",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a:-x",
            "a@sha256:12",
            "a b",
            "host:99999/a",
            "host:/a",
            "-host.io/a",
            &id,
            &long,
            "a:b:c",
            "é",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
