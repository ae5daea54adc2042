//! A full disk: a clear answer, nothing lost, and all is well again once there is space.

use std::fs;

use support::image::Image;
use support::needs;
use tonic::Code;

use crate::daemon::{self, Daemon, PLUGIN, source};

#[test]
fn full_disk_is_told_and_nothing_is_lost() {
    needs!(daemon::missing(), Image::missing("ext4"));
    // Declared first, unmounted last.
    let disk = Image::new("ext4", 24);
    let home = tempfile::Builder::new().prefix("lamina-full-").tempdir().unwrap();
    let mut daemon = Daemon::start_at(home, disk.path().join("store"));
    let mut client = daemon.client(PLUGIN);
    client.base("base");
    let ballast = source(&client.prepare("ballast", "base").unwrap());
    fs::write(ballast.join("kept"), "kept").unwrap();
    client.commit("image", "ballast").unwrap();

    // The container's own write fails as it would on any full disk.
    let hog = source(&client.prepare("hog", "image").unwrap());
    let error = fs::write(hog.join("all"), vec![1; 64 << 20]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    let mut refused = None;
    let mut made = Vec::new();
    for at in 0..10_000 {
        match client.prepare(&format!("more-{at}"), "") {
            Ok(_) => made.push(format!("more-{at}")),
            Err(status) => {
                refused = Some(status);
                break;
            }
        }
    }
    let refused = refused.expect("10,000 snapshots do not fit");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("No space left"), "{refused}");

    // Also for a daemon that starts on the full disk.
    daemon.kill();
    daemon.restart();
    let mut client = daemon.client(PLUGIN);
    assert_eq!(client.list(&["kind==committed"]).unwrap().len(), 2);
    client.remove("hog").unwrap();
    let view = source(&client.view("view", "image").unwrap());
    assert_eq!(fs::read_to_string(view.join("kept")).unwrap(), "kept");
    for key in made {
        client.remove(&key).unwrap();
    }
    client.prepare("again", "image").unwrap();
    daemon.clear();
    daemon.kill();
    daemon.check();
}
