//! All there is to know of a container, in docker's words where it has some.
//!
//! Invariant: what is printed was read now; nothing is remembered.

use super::error::Result;
use super::make::BASE;
use super::record::{Container, read};
use super::status::State;
use crate::bundle;
use serde_json::{Value, json};

/// The document of one container.
///
/// # Errors
/// Files of the container that cannot be read.
pub fn document(container: &Container) -> Result<Value> {
    let record = &container.record;
    let base: Value = read(&container.dir().join(BASE))?.unwrap_or_default();
    let process = &base["process"];
    let mounts = base["mounts"].as_array().into_iter().flatten();
    let binds: Vec<Value> = mounts.filter(|mount| mount["type"] == "bind").map(bind).collect();
    let resources = &base["linux"]["resources"];
    Ok(json!({
        "Id": record.id.as_str(),
        "Name": format!("/{}", record.name),
        "Created": record.created,
        "Path": record.command.first(),
        "Args": record.command.get(1..).unwrap_or_default(),
        "State": state(&container.state()?),
        "Image": record.image_id.to_string(),
        "LogPath": container.log(),
        "Mounts": binds,
        "Config": {
            "Image": record.image,
            "Cmd": record.command,
            "Hostname": base["hostname"],
            "User": bundle::user(&base),
            "Env": process["env"],
            "WorkingDir": process["cwd"],
            "Tty": record.terminal,
            "OpenStdin": record.interactive,
            "Labels": record.labels,
            "StopSignal": record.stop_signal,
            "StopTimeout": record.stop_timeout_seconds,
        },
        "HostConfig": {
            "AutoRemove": record.remove,
            "ReadonlyRootfs": base["root"]["readonly"],
            "Memory": resources["memory"]["limit"],
            "PidsLimit": resources["pids"]["limit"],
            "CpuQuota": resources["cpu"]["quota"],
            "CpuPeriod": resources["cpu"]["period"],
        },
        "Rootless": record.rootless,
        "Snapshot": record.content,
    }))
}

fn bind(mount: &Value) -> Value {
    let words: Vec<&str> = mount["options"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    json!({
        "Type": "bind",
        "Source": mount["source"],
        "Destination": mount["destination"],
        "Mode": words.join(","),
        "RW": !words.contains(&"ro"),
    })
}

fn state(state: &State) -> Value {
    let mut shown = json!({
        "Status": state.word(),
        "Running": state.runs(),
        "Paused": state.word() == "paused",
        "Pid": 0,
        "ExitCode": 0,
        "OOMKilled": false,
        "Error": "",
    });
    match state {
        State::Created => {}
        State::Running { pid, started, fault, .. } => {
            shown["Pid"] = json!(pid);
            shown["StartedAt"] = json!(started);
            shown["Error"] = json!(fault.as_deref().unwrap_or_default());
        }
        State::Exited(exit) => {
            shown["ExitCode"] = json!(exit.code);
            shown["FinishedAt"] = json!(exit.finished);
            shown["OOMKilled"] = json!(exit.out_of_memory);
            shown["Error"] = json!(exit.error.as_deref().unwrap_or_default());
        }
    }
    shown
}
