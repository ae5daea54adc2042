//! Who we are to a registry: the files of Docker and Podman, and Docker's credential helpers.
//!
//! Owns where they lie and in which order they count: `$REGISTRY_AUTH_FILE`, Podman's file, Docker's. Invariant: a secret is
//! printed nowhere.

use super::error::RegistryError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Docker's key of its own registry.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// What a helper answers as the user of an identity token.
const TOKEN_USER: &str = "<token>";
const NOT_FOUND: &str = "credentials not found";

/// A user and what proves it.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Name and password.
    Password { user: String, password: String },
    /// A token to get others by.
    Identity { token: String },
}

impl Credentials {
    /// The user's name, for errors.
    pub fn user(&self) -> &str {
        match self {
            Credentials::Password { user, .. } => user,
            Credentials::Identity { .. } => TOKEN_USER,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Credentials of {}", self.user())
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AuthFile {
    auths: BTreeMap<String, AuthEntry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AuthEntry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

/// The credentials for a repository of a registry, where there are any.
///
/// # Errors
/// A file or helper that is there and does not answer.
pub fn find(registry: &str, repository: &str) -> Result<Option<Credentials>, RegistryError> {
    for path in files() {
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(RegistryError::CredentialsFile { path, cause: error.to_string() }),
        };
        if let Some(found) = in_file(&path, &text, registry, repository)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn files() -> Vec<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = set("HOME");
    let docker = set("DOCKER_CONFIG").or_else(|| home.as_ref().map(|home| home.join(".docker")));
    let runtime = set("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json"));
    let config = home.map(|home| home.join(".config/containers/auth.json"));
    let docker = docker.map(|dir| dir.join("config.json"));
    [set("REGISTRY_AUTH_FILE"), runtime, config, docker].into_iter().flatten().collect()
}

fn in_file(path: &Path, text: &[u8], registry: &str, repository: &str) -> Result<Option<Credentials>, RegistryError> {
    let broken = |cause: String| RegistryError::CredentialsFile { path: path.to_owned(), cause };
    let file: AuthFile = serde_json::from_slice(text).map_err(|error| broken(error.to_string()))?;
    let host = if registry == "docker.io" { DOCKER_HUB_KEY } else { registry };
    let helper = file.cred_helpers.get(registry).or_else(|| file.cred_helpers.get(host)).cloned();
    let helper = helper.or_else(|| Some(file.creds_store.clone()).filter(|store| !store.is_empty()));
    if let Some(helper) = helper
        && let Some(found) = ask_helper(&helper, host)?
    {
        return Ok(Some(found));
    }
    // Podman keeps logins of a part of a registry, too: the narrowest counts.
    let full = format!("{registry}/{repository}");
    let prefixes = full.match_indices('/').map(|(at, _)| &full[..at]).rev();
    let keys = std::iter::once(full.as_str()).chain(prefixes).chain([host]);
    let spelled = keys.flat_map(|key| [key.to_owned(), format!("https://{key}"), format!("https://{key}/v1/")]);
    match spelled.filter_map(|key| file.auths.get(&key)).next() {
        Some(entry) => entry.read().map_err(broken),
        None => Ok(None),
    }
}

impl AuthEntry {
    fn read(&self) -> Result<Option<Credentials>, String> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credentials::Identity { token: self.identitytoken.clone() }));
        }
        if !self.username.is_empty() {
            let (user, password) = (self.username.clone(), self.password.clone());
            return Ok(Some(Credentials::Password { user, password }));
        }
        if self.auth.is_empty() {
            return Ok(None);
        }
        let decoded = STANDARD.decode(self.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match decoded.as_deref().and_then(|text| text.split_once(':')) {
            Some((user, password)) => {
                let password = password.trim_end_matches('\0').to_owned();
                Ok(Some(Credentials::Password { user: user.to_owned(), password }))
            }
            None => Err("an entry is not USER:PASSWORD in base64".to_owned()),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// The protocol of docker-credential-helpers: the server on standard input, the answer as JSON.
fn ask_helper(name: &str, server: &str) -> Result<Option<Credentials>, RegistryError> {
    let program = format!("docker-credential-{name}");
    let fail = |cause: String| RegistryError::Helper { program: program.clone(), cause };
    if name.contains('/') {
        return Err(fail("its name holds a slash".to_owned()));
    }
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| fail(error.to_string()))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(server.as_bytes()).map_err(|error| fail(error.to_string()))?;
    }
    let output = child.wait_with_output().map_err(|error| fail(error.to_string()))?;
    if !output.status.success() {
        // Helpers say it on either stream, and how they fail otherwise is theirs.
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        return if said.contains(NOT_FOUND) { Ok(None) } else { Err(fail(said)) };
    }
    let answer: HelperAnswer = serde_json::from_slice(&output.stdout).map_err(|error| fail(error.to_string()))?;
    Ok(Some(match answer.username.as_str() {
        TOKEN_USER => Credentials::Identity { token: answer.secret },
        _ => Credentials::Password { user: answer.username, password: answer.secret },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_in(text: &str, registry: &str, repository: &str) -> Option<Credentials> {
        in_file(Path::new("auth.json"), text.as_bytes(), registry, repository).expect("it parses")
    }

    #[test]
    fn narrowest_login_counts() {
        let text = r#"{"auths": {"r.io": {"auth": "YTpi"}, "r.io/team": {"username": "t", "password": "p"},
            "https://index.docker.io/v1/": {"identitytoken": "tok"}}}"#;
        let password = |user: &str, password: &str| {
            Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() })
        };
        assert_eq!(find_in(text, "r.io", "other/app"), password("a", "b"));
        assert_eq!(find_in(text, "r.io", "team/app"), password("t", "p"));
        assert_eq!(find_in(text, "docker.io", "library/x"), Some(Credentials::Identity { token: "tok".to_owned() }));
        assert_eq!(find_in(text, "else.io", "x"), None);
    }

    #[test]
    fn broken_files_are_named_and_secrets_are_not_printed() {
        let error = in_file(Path::new("/x/auth.json"), b"{\"auths\":{\"r.io\":{\"auth\":\"???\"}}}", "r.io", "a");
        assert!(error.expect_err("it is broken").to_string().contains("/x/auth.json"));
        let secret = Credentials::Password { user: "u".to_owned(), password: "hunter2".to_owned() };
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
