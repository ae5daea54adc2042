//! config.md, "POSIX-platform Hooks": their order, their input, their failures.

use super::linux::namespace;
use crate::bundle::{Bundle, Runtime};
use serde_json::{Value, json};
use std::fs;

/// A hook that notes its name in a file of the bundle.
fn noting(bundle: &Bundle, name: &str) -> Value {
    let line = format!("cat > /dev/null; echo {name} >> {}/notes", bundle.path().display());
    json!([{"path": "/bin/sh", "args": ["sh", "-c", line], "env": ["PATH=/bin:/usr/bin"]}])
}

fn notes(bundle: &Bundle) -> Vec<String> {
    let text = fs::read_to_string(bundle.path().join("notes")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

pub fn hooks_must_run_in_their_order(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        let hook = noting(&bundle, kind);
        bundle.set(&format!("/hooks/{kind}"), hook);
    }
    bundle.create().ok();
    assert_eq!(notes(&bundle), ["prestart", "createRuntime", "createContainer"]);
    bundle.start().ok();
    assert_eq!(notes(&bundle).last().map(String::as_str), Some("poststart"));
    bundle.await_end();
    bundle.verb(&["delete", &bundle.id]).ok();
    assert_eq!(notes(&bundle).last().map(String::as_str), Some("poststop"));
}

pub fn hooks_must_read_the_state(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    for (kind, _) in [("prestart", "created"), ("poststart", "running"), ("poststop", "stopped")] {
        let line = format!("cat > {}/{kind}", bundle.path().display());
        bundle.set(
            &format!("/hooks/{kind}"),
            json!([{"path": "/bin/sh", "args": ["sh", "-c", line], "env": ["PATH=/bin"]}]),
        );
    }
    bundle.create().ok();
    let pid = bundle.pid();
    bundle.start().ok();
    bundle.await_end();
    bundle.verb(&["delete", &bundle.id]).ok();
    for (kind, status) in [("prestart", "created"), ("poststart", "running"), ("poststop", "stopped")] {
        let state: Value = serde_json::from_slice(&fs::read(bundle.path().join(kind)).expect(kind)).expect("JSON");
        assert_eq!(
            (state["id"].as_str(), state["status"].as_str()),
            (Some(bundle.id.as_str()), Some(status)),
            "{kind}"
        );
        assert!(status == "stopped" || state["pid"] == pid, "{kind}: {state}");
    }
}

pub fn a_failing_create_hook_must_stop_the_container(runtime: &Runtime) {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut bundle = Bundle::new(runtime);
        bundle.set(&format!("/hooks/{kind}"), json!([{"path": "/bin/false"}])).script("touch /ran").run().refuses();
        assert!(!bundle.rootfs().join("ran").exists(), "{kind}");
        bundle.verb(&["state", &bundle.id]).refuses();
    }
}

pub fn a_failing_poststop_hook_must_only_be_told(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    let second = noting(&bundle, "second");
    bundle.set("/hooks/poststop", json!([{"path": "/bin/false"}, second[0]]));
    bundle.create().ok();
    bundle.start().ok();
    bundle.await_end();
    bundle.verb(&["delete", &bundle.id]).ok();
    assert_eq!(notes(&bundle), ["second"]);
    bundle.verb(&["state", &bundle.id]).refuses();
}

pub fn create_container_hooks_must_run_in_the_containers_namespaces(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    let line = format!("readlink /proc/self/ns/uts > {}/uts", bundle.path().display());
    bundle.set(
        "/hooks/createContainer",
        json!([{"path": "/bin/sh", "args": ["sh", "-c", line], "env": ["PATH=/bin:/usr/bin"]}]),
    );
    bundle.create().ok();
    let found = fs::read_to_string(bundle.path().join("uts")).expect("the hook ran");
    assert_eq!(found.trim(), namespace(bundle.pid(), "uts"));
}

pub fn start_container_hooks_must_run_inside(runtime: &Runtime) {
    let mut bundle = Bundle::new(runtime);
    let program = bundle.rootfs().join("bin/note");
    support::machine::shell(&format!(
        "printf '#!/bin/sh\\nhostname > /noted\\n' > {0}; chmod 755 {0}",
        program.display()
    ));
    bundle.set("/hooks/startContainer", json!([{"path": "/bin/note", "env": ["PATH=/bin"]}]));
    bundle.create().ok();
    assert!(!bundle.rootfs().join("noted").exists());
    bundle.start().ok();
    bundle.await_end();
    assert_eq!(fs::read_to_string(bundle.rootfs().join("noted")).expect("the hook ran"), "tested\n");
}
