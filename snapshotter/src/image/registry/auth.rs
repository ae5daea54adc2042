//! How a registry asks who we are, and what we answer (distribution specification, token authentication).
//!
//! Invariant: a password is sent over TLS or within this machine only.

use super::client::is_loopback;
use super::credentials::Credentials;
use super::error::RegistryError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// The answer to a challenge that may be sent with every request.
pub type Header = String;

/// What a `WWW-Authenticate` header asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token, to be had at `realm`.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// Reads the header; `None` for another method.
    pub fn parse(header: &str) -> Option<Challenge> {
        let (method, rest) = header.split_once(' ').unwrap_or((header, ""));
        if method.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !method.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        for (key, value) in parameters(rest) {
            match key.to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                "scope" => scope = Some(value),
                _ => {}
            }
        }
        Some(Challenge::Bearer { realm: realm?, service, scope })
    }
}

/// `KEY="VALUE",KEY=VALUE...`; commas may stand in quotes.
fn parameters(mut text: &str) -> Vec<(&str, String)> {
    let mut found = Vec::new();
    while let Some((key, rest)) = text.split_once('=') {
        let key = key.trim_matches([' ', ',']);
        let (value, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once(',').unwrap_or((rest, "")),
        };
        found.push((key, value.to_owned()));
        text = after;
    }
    found
}

/// The value of an `Authorization` header for name and password.
pub fn basic(user: &str, password: &str) -> Header {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// Gets a token.
///
/// # Errors
/// What the token server answers.
pub fn token(
    agent: &ureq::Agent,
    registry: &str,
    (realm, service, scope): (&str, Option<&str>, &str),
    credentials: Option<&Credentials>,
) -> Result<Header, RegistryError> {
    let realm_uri: ureq::http::Uri = realm
        .parse()
        .map_err(|_| RegistryError::Challenge { registry: registry.to_owned(), challenge: realm.to_owned() })?;
    let plain = realm_uri.scheme_str() != Some("https") && !realm_uri.host().is_some_and(is_loopback);
    if plain && credentials.is_some() {
        return Err(RegistryError::PlainRealm { registry: registry.to_owned(), realm: realm.to_owned() });
    }
    let service = service.unwrap_or(registry);
    let sent = match credentials {
        Some(Credentials::Identity { token }) => agent.post(realm).send_form([
            ("grant_type", "refresh_token"),
            ("refresh_token", token.as_str()),
            ("service", service),
            ("scope", scope),
            ("client_id", "lamina"),
        ]),
        Some(Credentials::Password { user, password }) => {
            let request = agent.get(realm).query("account", user).header("authorization", basic(user, password));
            request.query("service", service).query("scope", scope).call()
        }
        None => agent.get(realm).query("service", service).query("scope", scope).call(),
    };
    let unreachable = |cause: String| RegistryError::Unreachable { registry: realm.to_owned(), cause };
    let mut answer = sent.map_err(|error| unreachable(error.to_string()))?;
    let text = answer.body_mut().read_to_string().map_err(|error| unreachable(error.to_string()))?;
    match (answer.status().as_u16(), credentials) {
        (200, _) => {}
        (401 | 403, Some(known)) => {
            return Err(RegistryError::WrongPassword { registry: registry.to_owned(), user: known.user().to_owned() });
        }
        (401 | 403, None) => return Err(RegistryError::NoCredentials { registry: registry.to_owned() }),
        (status, _) => {
            let (registry, request) = (registry.to_owned(), format!("GET {realm}"));
            return Err(RegistryError::Answer { registry, request, status, text });
        }
    }
    let parsed: Option<TokenAnswer> = serde_json::from_str(&text).ok();
    let token = parsed.map(|answer| if answer.token.is_empty() { answer.access_token } else { answer.token });
    match token.filter(|token| !token.is_empty()) {
        Some(token) => Ok(format!("Bearer {token}")),
        None => Err(unreachable("its answer holds no token".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let bearer = Challenge::parse(r#"Bearer realm="https://a/token",service="r",scope="repository:x:pull,push""#);
        let some = |text: &str| Some(text.to_owned());
        let (realm, service, scope) = ("https://a/token".to_owned(), some("r"), some("repository:x:pull,push"));
        assert_eq!(bearer, Some(Challenge::Bearer { realm, service, scope }));
        assert_eq!(Challenge::parse(r#"Basic realm="x""#), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("basic"), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Negotiate"), None);
        assert_eq!(Challenge::parse("Bearer service=x"), None);
    }
}
