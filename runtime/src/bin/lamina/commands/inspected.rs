//! A container as docker prints it.

use lamina_runtime::container::parts::Parts;
use lamina_runtime::container::{Container, Result};
use serde_json::{Value, json};

/// What is known of a container; `parts` where its snapshot is there.
pub fn container(container: &Container, parts: Option<&Parts>) -> Result<Value> {
    let record = &container.record;
    let exit = container.exit()?;
    let (program, arguments) =
        record.command.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let join = |parts: &Parts| {
        let lowers: Vec<String> = parts.lowers.iter().map(|path| path.display().to_string()).collect();
        json!({ "LowerDir": lowers.join(":"), "UpperDir": parts.upper })
    };
    Ok(json!({
        "Id": record.id,
        "Created": record.created,
        "Path": program,
        "Args": arguments,
        "State": {
            "Status": if exit.is_some() { "exited" } else { "created" },
            "ExitCode": exit.as_ref().map_or(0, |exit| exit.code),
            "OOMKilled": exit.as_ref().is_some_and(|exit| exit.out_of_memory),
            "Error": exit.as_ref().and_then(|exit| exit.error.clone()).unwrap_or_default(),
            "FinishedAt": exit.as_ref().map(|exit| exit.finished.clone()),
        },
        "Image": record.image_id,
        "Name": format!("/{}", record.name),
        "LogPath": container.log(),
        "HostConfig": { "AutoRemove": record.remove },
        "GraphDriver": { "Name": "lamina", "Data": parts.map(join) },
        "Config": {
            "Image": record.image,
            "Cmd": record.command,
            "Tty": record.terminal,
            "OpenStdin": record.interactive,
            "Labels": record.labels,
            "StopSignal": record.stop_signal,
            "StopTimeout": record.stop_timeout_seconds,
        },
    }))
}
