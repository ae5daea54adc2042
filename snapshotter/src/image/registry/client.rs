//! One repository of one registry, asked over HTTP.
//!
//! Owns retries: what may pass by itself (no connection, 429, 5xx) is tried again, a bounded number of times and with
//! growing pauses. Invariant: what is refused for good is asked once.

use super::auth::{self, Challenge};
use super::credentials::{self, Credentials};
use super::error::RegistryError;
use crate::image::error::ImageError;
use crate::image::reference::{DOCKER_HUB, Reference};
use parking_lot::Mutex;
use std::time::Duration;
use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

/// Where Docker Hub's registry is.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
/// How often one request is tried.
pub const TRIES: u32 = 5;
/// The first pause between tries; each is twice the one before.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest pause that a registry may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long nothing may come before a connection counts as cut.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Characters of an error's text that are shown.
const SHOWN_MAX: usize = 300;

/// How a registry is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// TLS; on this machine without it where the registry has none.
    #[default]
    Secure,
    /// Without encryption, because somebody asked for it.
    Plain,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To read.
    Pull,
    /// To write as well.
    Push,
}

/// One repository.
pub struct Client {
    agent: Agent,
    registry: String,
    repository: String,
    base: String,
    scope: String,
    credentials: Option<Credentials>,
    authorization: Mutex<Option<auth::Header>>,
}

/// One try: given the value of the `Authorization` header, if there is one.
type Try<'a> = &'a dyn Fn(Option<&str>) -> Result<Response<Body>, ureq::Error>;

impl Client {
    /// Finds out how the registry is reached, and who we are to it.
    ///
    /// # Errors
    /// A registry that is not there; credentials that cannot be read.
    pub fn new(reference: &Reference, transport: Transport, access: Access) -> Result<Client, RegistryError> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent("lamina")
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(READ_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT))
            .timeout_per_write(Some(READ_TIMEOUT));
        let agent: Agent = config.build().into();
        let registry = reference.registry().to_owned();
        let host = if registry == DOCKER_HUB { DOCKER_HUB_HOST } else { &registry };
        let verb = if access == Access::Push { "pull,push" } else { "pull" };
        let repository = reference.repository().to_owned();
        Ok(Client {
            base: base(&agent, host, transport),
            scope: format!("repository:{repository}:{verb}"),
            credentials: credentials::find(&registry, &repository)?,
            authorization: Mutex::new(None),
            agent,
            registry,
            repository,
        })
    }

    /// The registry's name, for errors.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// What sends requests.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The address of something in the repository.
    pub fn url(&self, what: &str) -> String {
        format!("{}/v2/{}/{what}", self.base, self.repository)
    }

    /// Where a `Location` header leads, and whether that is the registry itself.
    pub fn location(&self, location: &str) -> (String, bool) {
        match location.starts_with('/') {
            true => (format!("{}{location}", self.base), true),
            false => (location.to_owned(), location.starts_with(&format!("{}/", self.base))),
        }
    }

    /// Sends a request until it is answered for good.
    ///
    /// # Errors
    /// No connection after all tries; who we are is not enough.
    pub fn send(&self, attempt: Try<'_>) -> Result<Response<Body>, RegistryError> {
        let mut pause = PAUSE;
        let mut asked = false;
        let mut tries = 1;
        loop {
            let authorization = self.authorization.lock().clone();
            let wait = match attempt(authorization.as_deref()) {
                Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED && !asked => {
                    asked = true;
                    self.authenticate(&answer)?;
                    continue;
                }
                Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED => return Err(self.refused()),
                Ok(answer) if may_pass(answer.status()) && tries < TRIES => retry_after(&answer).unwrap_or(pause),
                Ok(answer) => return Ok(answer),
                Err(error) if tries < TRIES => {
                    tracing::debug!(%error, registry = self.registry, "tried again");
                    pause
                }
                Err(error) => {
                    return Err(RegistryError::Unreachable {
                        registry: self.registry.clone(),
                        cause: error.to_string(),
                    });
                }
            };
            std::thread::sleep(wait);
            (tries, pause) = (tries + 1, pause * 2);
        }
    }

    /// Sends a request whose body can be read once only.
    ///
    /// # Errors
    /// No connection, or one that was cut; who we are is not enough.
    pub fn send_once(&self, attempt: Try<'_>) -> Result<Response<Body>, ImageError> {
        let authorization = self.authorization.lock().clone();
        match attempt(authorization.as_deref()) {
            Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED => Err(self.refused().into()),
            Ok(answer) => Ok(answer),
            Err(error) => {
                let (registry, cause) = (self.registry.clone(), error.to_string());
                Err(RegistryError::Unreachable { registry, cause }.into())
            }
        }
    }

    /// What is asked for, as an image's name in the registry.
    pub fn named(&self, asked: &str) -> String {
        let joint = if asked.contains(':') { '@' } else { ':' };
        format!("{}{joint}{asked}", self.repository)
    }

    fn refused(&self) -> RegistryError {
        let registry = self.registry.clone();
        match &self.credentials {
            Some(known) => RegistryError::WrongPassword { registry, user: known.user().to_owned() },
            None => RegistryError::NoCredentials { registry },
        }
    }

    /// Answers a challenge.
    fn authenticate(&self, answer: &Response<Body>) -> Result<(), RegistryError> {
        let header = answer.headers().get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        let header = header.unwrap_or_default();
        let unknown = || RegistryError::Challenge { registry: self.registry.clone(), challenge: header.to_owned() };
        let answer = match Challenge::parse(header).ok_or_else(unknown)? {
            Challenge::Basic => match &self.credentials {
                Some(Credentials::Password { user, password }) => auth::basic(user, password),
                _ => return Err(RegistryError::NoCredentials { registry: self.registry.clone() }),
            },
            Challenge::Bearer { realm, service, scope } => {
                let scope = scope.as_deref().unwrap_or(&self.scope);
                let asked = (realm.as_str(), service.as_deref(), scope);
                auth::token(&self.agent, &self.registry, asked, self.credentials.as_ref())?
            }
        };
        *self.authorization.lock() = Some(answer);
        Ok(())
    }

    /// An answer that is not the one hoped for, as an error.
    pub fn unexpected(&self, request: &str, mut answer: Response<Body>) -> RegistryError {
        // The text only explains; where it cannot be read, the status speaks for itself.
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        let text = text.trim().chars().take(SHOWN_MAX).collect();
        let status = answer.status().as_u16();
        RegistryError::Answer { registry: self.registry.clone(), request: request.to_owned(), status, text }
    }
}

fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

fn retry_after(answer: &Response<Body>) -> Option<Duration> {
    let seconds = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(PAUSE_MAX))
}

/// Whether a host is this machine.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Scheme and host. A registry on this machine need not have TLS: it is asked.
fn base(agent: &Agent, host: &str, transport: Transport) -> String {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let secure = format!("https://{host}");
    let plain = match transport {
        Transport::Plain => true,
        Transport::Secure => is_loopback(name) && agent.get(format!("{secure}/v2/")).call().is_err(),
    };
    if plain { format!("http://{host}") } else { secure }
}

/// Adds what a try was given.
pub fn authorized<B>(request: ureq::RequestBuilder<B>, authorization: Option<&str>) -> ureq::RequestBuilder<B> {
    match authorization {
        Some(value) => request.header("authorization", value),
        None => request,
    }
}
