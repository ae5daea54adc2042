//! Every sample, for programs. Invariant: what the table says can be computed from it.

use anyhow::Result;

use super::Results;

/// The file's text.
pub fn render(results: &Results) -> Result<String> {
    Ok(serde_json::to_string_pretty(results)?)
}
