//! What can go wrong with a registry, in sentences.

use std::path::PathBuf;

/// Why a registry did not serve.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences say it")]
#[non_exhaustive]
pub enum RegistryError {
    #[error("registry {registry} cannot be reached: {cause}")]
    Unreachable { registry: String, cause: String },
    #[error(
        "registry {registry} refuses user {user:?}: the password is wrong or the user may not do this; log in again (`docker login` or `podman login`)"
    )]
    WrongPassword { registry: String, user: String },
    #[error(
        "registry {registry} wants to know who asks, and no credentials are there: log in (`docker login` or `podman login`), or name a file with $REGISTRY_AUTH_FILE"
    )]
    NoCredentials { registry: String },
    #[error("registry {registry} has no image {name}: check its name and tag")]
    NoImage { registry: String, name: String },
    #[error(
        "registry {registry} does not have blob {digest}, which its own manifest names: the image there is not complete, push it again"
    )]
    NoBlob { registry: String, digest: String },
    #[error("registry {registry} answers {status} to {request}: {text}")]
    Answer { registry: String, request: String, status: u16, text: String },
    #[error(
        "the download of {digest} from {registry} broke off {tries} times without a byte in between, the last time so: {cause}"
    )]
    Cut { registry: String, digest: String, tries: u32, cause: String },
    #[error(
        "registry {registry} sent {what} with digest {found} and not {expected}: distrust it, or the network in between"
    )]
    WrongDigest { registry: String, what: String, expected: String, found: String },
    #[error("registry {registry} sends credentials to {realm}, without encryption and not on this machine: not sent")]
    PlainRealm { registry: String, realm: String },
    #[error("registry {registry} asks to log in by a method that is not known: {challenge}")]
    Challenge { registry: String, challenge: String },
    #[error("credentials in {}: {cause}", path.display())]
    CredentialsFile { path: PathBuf, cause: String },
    #[error("credential helper {program}: {cause}")]
    Helper { program: String, cause: String },
}
