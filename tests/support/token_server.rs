//! A server that gives out tokens for a registry, as that of a public registry does: on loopback, with a key of its own. It owns the key and the thread.
//! Invariant: a token is good for what was asked, and given only to who says the password, or to whom it was given to refresh.
//!
//! Source: distribution documentation, "Token Authentication" and "JWT"; RFC 7519.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::machine;
use serde_json::{Value, json};

/// What tokens call the registry.
pub const SERVICE: &str = "test-registry";
/// What they call who gives them out.
pub const ISSUER: &str = "test-issuer";

/// `user:right`, as a header has it.
const RIGHT: &str = "Basic dXNlcjpyaWdodA==";

/// A token that only asks for others, in place of a password (`identitytoken`).
pub const IDENTITY: &str = "an-identity";

/// A server that gives out tokens.
pub struct TokenServer {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    /// Whom its tokens are to be believed by: PEM.
    pub certificate: PathBuf,
}

impl TokenServer {
    /// `dir` takes the key and its certificate.
    pub fn start(dir: &Path) -> TokenServer {
        let (key, certificate) = (dir.join("token.key"), dir.join("token.pem"));
        machine::shell(&format!(
            "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=test -days 2 -keyout '{}' -out '{}'",
            key.display(),
            certificate.display()
        ));
        let chain =
            machine::shell(&format!("openssl x509 -in '{}' -outform DER | openssl base64 -A", certificate.display()));
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                answer(client, &key, &chain);
            }
        });
        TokenServer { port, certificate }
    }
}

/// One request on a connection.
fn answer(client: TcpStream, key: &Path, chain: &str) {
    let mut reader = BufReader::new(client.try_clone().expect("dup"));
    let (mut request, mut authorization, mut length) = (String::new(), String::new(), 0);
    reader.read_line(&mut request).expect("a request");
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header");
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => value.clone_into(&mut authorization),
            "content-length" => length = value.parse().expect("a length"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    let body = String::from_utf8(body).expect("a form");
    let query = request.split([' ', '?']).nth(2).unwrap_or_default();
    let fields = if request.starts_with("POST ") { body.as_str() } else { query };
    let field = |name: &str| {
        let found = fields.split('&').find_map(|field| field.strip_prefix(&format!("{name}=")));
        found.unwrap_or_default().replace("%3A", ":").replace("%2F", "/").replace("%2C", ",")
    };
    let known = if request.starts_with("POST ") { field("refresh_token") == IDENTITY } else { authorization == RIGHT };
    let (status, text) = match known && field("service") == SERVICE {
        true => ("200 OK", json!({"token": token(key, chain, &field("scope"))}).to_string()),
        false => ("401 Unauthorized", String::new()),
    };
    let length = text.len();
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}");
    // Who has gone does not need it.
    drop((&client).write_all(answer.as_bytes()));
}

/// A signed token for a scope: `repository:NAME:ACTION,ACTION`.
fn token(key: &Path, chain: &str, scope: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let access: Vec<Value> = scope
        .split(' ')
        .filter_map(|one| {
            let (kind, rest) = one.split_once(':')?;
            let (name, actions) = rest.rsplit_once(':')?;
            Some(json!({"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}))
        })
        .collect();
    let head = json!({"typ": "JWT", "alg": "RS256", "x5c": [chain]});
    let claims = json!({
        "iss": ISSUER, "sub": "user", "aud": SERVICE, "exp": now + 300, "nbf": now - 10, "iat": now, "jti": "1", "access": access
    });
    let text = [head, claims].map(|part| encoded("cat", part.to_string().as_bytes())).join(".");
    let sign = format!("openssl dgst -sha256 -sign '{}'", key.display());
    let signature = encoded(&sign, text.as_bytes());
    format!("{text}.{signature}")
}

/// What a command makes of its input, in base64url without padding.
fn encoded(command: &str, input: &[u8]) -> String {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(input).expect("write");
    machine::shell(&format!("{command} <'{}' | openssl base64 -A | tr '+/' '-_' | tr -d =", file.path().display()))
}
