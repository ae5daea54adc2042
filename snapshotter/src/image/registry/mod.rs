//! Registries: the OCI distribution specification, spoken as a client.
//!
//! Owns HTTP, credentials and tokens. On `ureq`, which blocks as the store does and brings no runtime. The crate oci-client
//! was weighed and left: it reads no Docker configuration, retries nothing, cannot go on with a cut download and renews no
//! token in the middle, which is most of what is here, and it brings some hundred crates. Invariant: every document and blob
//! that comes has the digest that it was asked by, or that the answer announced; credentials go to the registry's own host
//! and to the token server that it names over TLS, nowhere else.

mod at_once;
mod auth;
mod client;
mod credentials;
mod error;
mod fetch;
mod pull;
mod push;

pub use client::Transport;
pub use error::RegistryError;
pub use pull::pull;
pub use push::push;
