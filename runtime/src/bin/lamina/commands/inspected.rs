//! A container as docker prints it.

use lamina_runtime::container::parts::Parts;
use lamina_runtime::container::{Container, Result, inspect};
use serde_json::{Value, json};

/// What is known of a container; `parts` where its snapshot is there.
pub fn container(container: &Container, parts: Option<&Parts>) -> Result<Value> {
    let join = |parts: &Parts| {
        let lowers: Vec<String> = parts.lowers.iter().map(|path| path.display().to_string()).collect();
        json!({ "LowerDir": lowers.join(":"), "UpperDir": parts.upper })
    };
    let mut shown = inspect::document(container)?;
    shown["GraphDriver"] = json!({ "Name": "lamina", "Data": parts.map(join) });
    Ok(shown)
}
