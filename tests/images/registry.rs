//! Pull and push against Debian's docker-registry.

use std::mem::MaybeUninit;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify;
use support::{debian, machine, needs};

use crate::command::Images;
use support::registry::{Line, Server};
use support::token_server::IDENTITY;

fn missing() -> Option<String> {
    debian::missing().or_else(Server::missing)
}

/// A store with the test image under a name in the registry.
fn loaded(name: &str) -> Images {
    let images = Images::new();
    images.run(&["load".as_ref(), debian::layout().as_os_str(), "--tag".as_ref(), name.as_ref()]);
    images
}

fn blobs(images: &Images, name: &str) -> Vec<(String, u64)> {
    let inspected = images.json(&["inspect", name]);
    let layers = inspected["layers"].as_array().expect("layers");
    let blob = |layer: &serde_json::Value| {
        (layer["blob"].as_str().expect("digest").to_owned(), layer["blob_bytes"].as_u64().expect("size"))
    };
    layers.iter().map(blob).collect()
}

#[test]
fn pushed_image_is_pulled_again_and_read_by_skopeo() {
    needs!(missing(), machine::program("skopeo"));
    let server = Server::open();
    let name = format!("localhost:{}/team/app:1", server.port);
    let images = loaded(&name);
    let pushed = images.json(&["push", &name]);
    let seen = machine::run("skopeo", &["inspect", "--tls-verify=false", &format!("docker://{name}")]);
    let seen: serde_json::Value = serde_json::from_str(&seen).expect("JSON");
    assert_eq!(seen["Digest"], pushed["digest"]);
    let other = Images::new();
    other.run(&["pull", &name]);
    assert_eq!(other.json(&["list"])[0]["digest"], pushed["digest"]);
    assert_eq!(other.layers(&name).len(), images.layers(&name).len());
    let digest = pushed["digest"].as_str().expect("digest");
    let by_digest = format!("localhost:{}/team/app@{digest}", server.port);
    other.run(&["pull", &by_digest]);
    assert_eq!(other.json(&["list"]).as_array().map(Vec::len), Some(2));
}

#[test]
fn pull_goes_on_where_the_connection_was_cut() {
    needs!(missing());
    let server = Server::open();
    let name = format!("localhost:{}/app:1", server.port);
    let images = loaded(&name);
    images.run(&["push", &name]);
    let total: u64 = blobs(&images, &name).iter().map(|(_, bytes)| bytes).sum();
    let line = Line::to(server.port, &[2_000_000, 5_000_000]);
    let cut = format!("localhost:{}/app:1", line.port);
    let other = Images::new();
    other.run(&["pull", &cut]);
    assert_eq!(line.cuts(), 2);
    // What was sent once is not sent again: headers and documents are all that comes besides.
    assert!(line.returned() >= total && line.returned() < total + 200_000, "{} of {total}", line.returned());
    assert_eq!(blobs(&other, &cut), blobs(&images, &name));
}

/// More than what is sent around blobs: headers and documents.
const BESIDES_BYTES: u64 = 100_000;

#[test]
fn push_that_was_cut_goes_on() {
    needs!(missing());
    let server = Server::open();
    let line = Line::that_cuts_what_is_sent(server.port, &[6_000_000, 20_000_000]);
    let name = format!("localhost:{}/app:1", line.port);
    let images = loaded(&name);
    images.run(&["push", &name]);
    assert_eq!(line.cuts(), 2);
    let other = Images::new();
    other.run(&["pull", &name]);
    assert_eq!(blobs(&other, &name), blobs(&images, &name));
}

#[test]
fn blob_that_the_registry_has_is_not_sent() {
    needs!(missing());
    let server = Server::open();
    let line = Line::to(server.port, &[]);
    let name = format!("localhost:{}/app:1", line.port);
    let images = loaded(&name);
    images.run(&["push", &name]);
    let sent = line.sent();
    assert!(sent > blobs(&images, &name).iter().map(|(_, bytes)| bytes).sum());
    images.run(&["push", &name]);
    assert!(line.sent() < sent + BESIDES_BYTES, "it is in the repository");
    let elsewhere = format!("localhost:{}/team/other:2", line.port);
    images.run(&["tag", &name, &elsewhere]);
    let sent = line.sent();
    images.run(&["push", &elsewhere]);
    assert!(line.sent() < sent + BESIDES_BYTES, "it is in a repository that the store has a name of");
    let other = Images::new();
    other.run(&["pull", &elsewhere]);
    assert_eq!(blobs(&other, &elsewhere), blobs(&images, &name));
}

#[test]
fn blob_with_other_content_is_refused_and_leaves_nothing() {
    needs!(missing());
    let server = Server::open();
    let name = format!("localhost:{}/app:1", server.port);
    let images = loaded(&name);
    images.run(&["push", &name]);
    let (digest, _) = blobs(&images, &name)[0].clone();
    let file = server.blob(&digest);
    let mut bytes = std::fs::read(&file).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).expect("write");
    let other = Images::new();
    let text = other.refusal(&["pull", &name]);
    assert!(text.contains(&digest) && text.contains("has other content"), "{text}");
    other.assert_empty();
}

/// Less than the test image's lowest layer, and more than the other two: what comes until then is a part of that layer too.
const STOP_BYTES: u64 = 12_000_000;

#[test]
fn layer_is_unpacked_while_it_comes() {
    needs!(missing());
    let server = Server::open();
    let name = format!("localhost:{}/app:1", server.port);
    let images = loaded(&name);
    images.run(&["push", &name]);
    let layers = blobs(&images, &name);
    let (lowest, sizes) = (&layers[0].0, layers.iter().map(|(_, bytes)| *bytes).collect::<Vec<u64>>());
    assert!(sizes[0] > STOP_BYTES && sizes[1] + sizes[2] < STOP_BYTES, "{sizes:?}");
    let line = Line::that_stops(server.port, STOP_BYTES);
    let stopped = format!("localhost:{}/app:1", line.port);
    let other = Images::new();
    other.run(&["list"]);
    std::thread::scope(|scope| {
        // Before a failure ends the scope, which waits for the pull.
        let _go_on = Defer(|| line.go_on());
        let pull = scope.spawn(|| other.run(&["pull", &stopped]));
        // No layer but the lowest has the name.
        wait_for_file(&other.root().join("snapshots"), "bin");
        let whole = other.files_below("blobs").iter().any(|file| file.ends_with(lowest.trim_start_matches("sha256:")));
        assert!(!whole, "its blob is still on its way");
        line.go_on();
        pull.join().expect("it is pulled");
    });
    assert_eq!(blobs(&other, &stopped), layers);
}

/// Does it at the end of the scope.
struct Defer<F: Fn()>(F);

impl<F: Fn()> Drop for Defer<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// How long nothing may happen before a wait has failed.
const WAIT: Timespec = Timespec { tv_sec: 120, tv_nsec: 0 };

/// Waits until something below `top` has the name: the kernel tells of every change, see inotify(7).
fn wait_for_file(top: &Path, name: &str) {
    let changes = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).expect("inotify");
    let mut buffer = [MaybeUninit::uninit(); 4096];
    loop {
        let mut dirs = vec![top.to_owned()];
        while let Some(dir) = dirs.pop() {
            // Whatever is made after this wakes us; a directory may be gone by now.
            if inotify::add_watch(&changes, &dir, inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO).is_err()
            {
                continue;
            }
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                if entry.file_name() == name {
                    return;
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    dirs.push(entry.path());
                }
            }
        }
        let changed = rustix::event::poll(&mut [PollFd::new(&changes, PollFlags::IN)], Some(&WAIT)).expect("poll");
        assert_ne!(changed, 0, "nothing below {} is called {name}", top.display());
        let mut told = inotify::Reader::new(&changes, &mut buffer);
        while told.next().is_ok() {}
    }
}

#[test]
fn layer_that_is_not_what_the_image_says_is_not_pulled() {
    needs!(missing(), machine::program("skopeo"));
    let server = Server::open();
    let name = format!("localhost:{}/app:1", server.port);
    let images = Images::new();
    // A configuration that names another content of the lowest layer than that has.
    let layout = images.scratch("layout");
    machine::shell(&format!(
        "cp -r {} {} && cd {}/blobs/sha256
         entry() {{ grep -l \"$1\" $(find . -size -9k -type f) | sed 's|./||'; }}
         rename() {{ sum=$(sha256sum \"$1\" | cut -d' ' -f1); mv \"$1\" $sum; }}
         config=$(entry diff_ids); manifest=$(entry schemaVersion)
         sed -i -E 's/(\"diff_ids\":\\[\"sha256:)[0-9a-f]{{8}}/\\100000000/' $config && rename $config
         sed -i s/$config/$sum/ $manifest && old=$manifest && rename $manifest && sed -i s/$old/$sum/ ../../index.json",
        debian::layout().display(),
        layout.display(),
        layout.display()
    ));
    let (from, to) = (format!("oci:{}:app", layout.display()), format!("docker://{name}"));
    machine::run("skopeo", &["copy", "--quiet", "--dest-tls-verify=false", &from, &to]);
    let text = images.refusal(&["pull", &name]);
    assert!(text.contains("unpacks to sha256:") && text.contains("the image says sha256:00000000"), "{text}");
    images.assert_empty();
}

#[test]
fn unknown_tag_and_unreachable_registry_are_a_sentence_each() {
    needs!(missing());
    let server = Server::open();
    let images = Images::new();
    let text = images.refusal(&["pull", &format!("localhost:{}/app:none", server.port)]);
    assert!(text.contains("has no image app:none"), "{text}");
    let port = server.port;
    drop(server);
    let text = images.refusal(&["pull", &format!("localhost:{port}/app:1")]);
    assert!(text.contains("cannot be reached"), "{text}");
    images.assert_empty();
}

fn auth_file(images: &Images, port: u16, password: &str) -> std::path::PathBuf {
    let path = images.scratch("auth.json");
    let text = format!(r#"{{"auths":{{"localhost:{port}":{{"username":"user","password":"{password}"}}}}}}"#);
    std::fs::write(&path, text).expect("write");
    path
}

#[test]
fn password_is_asked_for_refused_and_taken() {
    needs!(missing());
    let server = Server::with_password();
    let name = format!("localhost:{}/app:1", server.port);
    let images = loaded(&name);
    let text = images.refusal(&["push", &name]);
    assert!(text.contains("log in"), "{text}");
    let wrong = auth_file(&images, server.port, "wrong");
    let images = images.with("REGISTRY_AUTH_FILE", &wrong);
    let text = images.refusal(&["push", &name]);
    assert!(text.contains("the password is wrong") && text.contains("user"), "{text}");
    auth_file(&images, server.port, "right");
    images.run(&["push", &name]);
}

#[test]
fn token_is_asked_of_the_server_that_the_registry_names() {
    needs!(missing(), machine::program("openssl"));
    let server = Server::with_tokens();
    let name = format!("localhost:{}/group/app:1", server.port);
    let images = loaded(&name);
    assert!(images.refusal(&["push", &name]).contains("log in"));
    let file = auth_file(&images, server.port, "wrong");
    let images = images.with("REGISTRY_AUTH_FILE", &file);
    assert!(images.refusal(&["push", &name]).contains("the password is wrong"));
    auth_file(&images, server.port, "right");
    images.run(&["push", &name]);
    // In place of a password, one that `docker login` was given to keep.
    let text = format!(r#"{{"auths":{{"localhost:{}":{{"identitytoken":"{IDENTITY}"}}}}}}"#, server.port);
    let other = Images::new();
    std::fs::write(other.scratch("auth.json"), text).expect("write");
    let file = other.scratch("auth.json");
    let other = other.with("REGISTRY_AUTH_FILE", &file);
    other.run(&["pull", &name]);
    assert_eq!(blobs(&other, &name), blobs(&images, &name));
}

#[test]
fn credential_helper_is_asked() {
    needs!(missing());
    let server = Server::with_password();
    let name = format!("localhost:{}/app:1", server.port);
    let images = loaded(&name);
    let dir = images.scratch("docker");
    std::fs::create_dir(&dir).expect("mkdir");
    std::fs::write(dir.join("config.json"), r#"{"credsStore":"test"}"#).expect("write");
    let helper = dir.join("docker-credential-test");
    let script = format!(
        "#!/bin/sh\nread -r server\n[ \"$1 $server\" = 'get localhost:{}' ] || {{ echo 'credentials not found'; exit 1; }}\n\
         echo '{{\"Username\":\"user\",\"Secret\":\"right\"}}'\n",
        server.port
    );
    std::fs::write(&helper, script).expect("write");
    machine::run("chmod", &["755", helper.to_str().expect("UTF-8")]);
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap_or_default());
    let images = images.with("DOCKER_CONFIG", &dir).with("PATH", Path::new(&path));
    images.run(&["push", &name]);
}
