//! What people see on a terminal: columns, sizes, progress bars; for every command line that stands on this library.
//!
//! Must not know what is shown. Invariant: nothing here is written to standard output.

mod bars;
mod table;

pub use bars::Bars;
pub use table::{bytes, table};
