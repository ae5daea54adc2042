//! Images: names, documents, archives, registries, and how their layers get into the store.
//!
//! Must not know containers or containerd. Invariant: an image is recorded when all of it is there and was verified.

pub mod document;
pub mod error;
pub mod operations;
pub mod platform;
pub mod progress;
pub mod reference;
pub mod registry;

mod arrivals;
mod commit;
mod docker;
mod edit;
mod import;
mod layout;
mod save;
mod unpack;

pub use commit::{CommitOptions, Committed, commit};
pub use document::{Image, Layer};
pub use edit::Edit;
pub use error::ImageError;
pub use import::import;
pub use layout::{LoadOptions, Loaded, load, load_archive};
pub use platform::Platform;
pub use progress::{Progress, Report, Stage};
pub use reference::Reference;
pub use save::{Format, save, save_directory};
pub use unpack::{UnpackOptions, unpack};
