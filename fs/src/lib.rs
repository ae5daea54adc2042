//! Layers, their union, and how the union is served over FUSE.
//!
//! Reading order is the order of dependence from the outside in: `options` turns a command line into a configuration,
//! `fuse` serves a `union`, a `union` combines `layer`s, a `layer` asks the kernel through `sys`. Nothing imports leftwards.

pub mod error;
pub mod fuse;
pub mod index;
pub mod layer;
pub mod options;
pub(crate) mod sys;
pub mod union;
