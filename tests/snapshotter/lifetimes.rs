//! The servers of mounts outlive the daemon, and end with their snapshot.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lamina_snapshotter::digest::{ChainId, DiffId, Digest};
use support::usage::walk;
use support::{lamina, machine, needs};
use tonic::Code;

use crate::daemon::{self, Client, Daemon, PLUGIN, code, kill_server, source};
use crate::traced::Traced;

#[test]
fn killed_daemon_finds_its_servers_again() {
    needs!(daemon::missing());
    let mut daemon = Daemon::with_base();
    let mut client = daemon.client(PLUGIN);
    let mounted = source(&client.prepare("ns/1/container", "base").unwrap());
    fs::write(mounted.join("own"), "1").unwrap();
    let servers = daemon.servers();
    assert_eq!(servers.len(), 1);
    for turn in 0..3 {
        if turn == 1 {
            daemon.terminate()
        } else {
            daemon.kill()
        }
        fs::write(mounted.join("meanwhile"), turn.to_string()).unwrap();
        daemon.restart();
        let mut client = daemon.client(PLUGIN);
        assert_eq!(source(&client.mounts("ns/1/container").unwrap()), mounted);
        assert_eq!(daemon.servers(), servers, "the same one");
        assert_eq!(fs::read_to_string(mounted.join("meanwhile")).unwrap(), turn.to_string());
    }
    daemon.clear();
}

/// Ten times the daemon dies and comes back under a writer that does not stop: it must not notice.
#[test]
fn no_write_fails_or_is_lost_while_the_daemon_dies() {
    needs!(daemon::missing());
    let (mut daemon, mounted) = Daemon::with_container();
    let (ended, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut file = File::options().create(true).append(true).open(mounted.join("log")).unwrap();
            while !ended.load(Ordering::SeqCst) {
                let line = written.load(Ordering::SeqCst);
                file.write_all(format!("{line}\n").as_bytes()).unwrap();
                written.store(line + 1, Ordering::SeqCst);
            }
        });
        for turn in 0..10 {
            let before = written.load(Ordering::SeqCst);
            if turn % 2 == 0 {
                daemon.kill()
            } else {
                daemon.terminate()
            }
            daemon.restart();
            // The writer has written through it, or it has died and the scope tells why.
            while written.load(Ordering::SeqCst) == before && !writer.is_finished() {
                std::thread::yield_now();
            }
        }
        ended.store(true, Ordering::SeqCst);
    });
    let text = fs::read_to_string(mounted.join("log")).unwrap();
    let expected: String = (0..written.load(Ordering::SeqCst)).map(|line| format!("{line}\n")).collect();
    assert!(text == expected, "{} bytes instead of {}", text.len(), expected.len());
    daemon.clear();
}

#[test]
fn killed_server_is_replaced_and_nothing_written_is_lost() {
    needs!(daemon::missing());
    let (daemon, mounted) = Daemon::with_container();
    let mut client = daemon.client(PLUGIN);
    fs::write(mounted.join("own"), "kept").unwrap();
    kill_server(daemon.servers()[0]);
    let again = source(&client.mounts("container").unwrap());
    assert_eq!(fs::read_to_string(again.join("own")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(again.join("base")).unwrap(), "base");
    daemon.clear();
}

/// What a reboot leaves: the note of a server, and neither process nor mount.
#[test]
fn mounts_come_back_after_a_reboot() {
    needs!(daemon::missing());
    let (mut daemon, mounted) = Daemon::with_container();
    fs::write(mounted.join("own"), "kept").unwrap();
    daemon.kill();
    nix::mount::umount2(&mounted, nix::mount::MntFlags::MNT_DETACH).unwrap();
    daemon.servers().into_iter().for_each(kill_server);
    // The server's number belongs to somebody else now: to this very process, which must survive.
    let note = mounted.with_file_name("server");
    let mut noted: serde_json::Value = serde_json::from_slice(&fs::read(&note).unwrap()).unwrap();
    noted["pid"] = std::process::id().into();
    fs::write(&note, noted.to_string()).unwrap();
    daemon.restart();
    let mut client = daemon.client(PLUGIN);
    assert_eq!(fs::read_to_string(source(&client.mounts("container").unwrap()).join("own")).unwrap(), "kept");
    daemon.clear();
}

#[test]
fn each_snapshot_is_a_superblock_of_its_own() {
    needs!(daemon::missing());
    let daemon = Daemon::with_base();
    let mut client = daemon.client(PLUGIN);
    let places = [
        source(&client.prepare("a", "base").unwrap()),
        source(&client.prepare("b", "base").unwrap()),
        source(&client.view("c", "base").unwrap()),
    ];
    fs::write(places[0].join("base"), "changed").unwrap();
    let device = |place: &std::path::PathBuf| fs::metadata(place.join("base")).unwrap().dev();
    let mut devices: Vec<u64> = places.iter().map(device).collect();
    devices.sort_unstable();
    devices.dedup();
    assert_eq!(devices.len(), 3);
    daemon.clear();
}

#[test]
fn view_cannot_be_written_whatever_the_caller_mounts() {
    needs!(daemon::missing());
    let daemon = Daemon::with_base();
    let mut client = daemon.client(PLUGIN);
    for (key, parent) in [("view", "base"), ("empty", "")] {
        let mounts = client.view(key, parent).unwrap();
        assert!(mounts[0].options.contains(&"ro".to_owned()), "{mounts:?}");
        // Without the bind that containerd would make read-only.
        let error = fs::write(source(&mounts).join("new"), "").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    }
    daemon.clear();
}

#[test]
fn committed_snapshot_does_not_change_under_an_old_mount() {
    needs!(daemon::missing());
    let (daemon, mounted) = Daemon::with_container();
    let mut client = daemon.client(PLUGIN);
    let bound = daemon.home().join("bound");
    fs::create_dir(&bound).unwrap();
    let flags = nix::mount::MsFlags::MS_BIND;
    nix::mount::mount(Some(&mounted), &bound, None::<&str>, flags, None::<&str>).unwrap();
    fs::write(bound.join("own"), "before").unwrap();
    client.commit("image", "container").unwrap();
    let late = fs::write(bound.join("own"), "after");
    let read = fs::read_to_string(bound.join("own"));
    nix::mount::umount2(&bound, nix::mount::MntFlags::empty()).unwrap();
    assert_eq!(late.unwrap_err().raw_os_error(), Some(libc::EROFS));
    assert_eq!(read.unwrap(), "before");
    let view = source(&client.view("look", "image").unwrap());
    assert_eq!(fs::read_to_string(view.join("own")).unwrap(), "before");
    daemon.clear();
}

/// As under systemd with a socket unit: who calls while no daemon runs waits for the next one.
#[test]
fn passed_socket_is_served_and_outlives_the_daemon() {
    needs!(daemon::missing());
    let mut daemon = Daemon::start();
    daemon.hold_socket();
    daemon.client(PLUGIN).base("base");
    daemon.kill();
    daemon.restart();
    let mut client = daemon.client(PLUGIN);
    let mounted = source(&client.prepare("container", "base").unwrap());
    daemon.terminate();
    assert!(daemon.socket().exists(), "it is not the daemon's to remove");
    // Nor is it the server's of a mount, which would keep it open.
    assert_eq!(fs::read_to_string(mounted.join("base")).unwrap(), "base");
    let server = daemon.servers()[0];
    let sockets = fs::read_dir(format!("/proc/{server}/fd")).unwrap().filter(|entry| {
        let link = fs::read_link(entry.as_ref().unwrap().path()).unwrap();
        link.to_string_lossy().starts_with("socket:")
    });
    assert_eq!(sockets.count(), 0);
    daemon.restart();
    daemon.clear();
}

#[test]
fn second_daemon_is_kept_out_and_told_by_whom() {
    needs!(daemon::missing());
    let daemon = Daemon::start();
    for verb in ["serve", "fsck"] {
        let mut command = daemon.command(verb);
        if verb == "serve" {
            command.arg("--socket").arg(daemon.home().join("other"));
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(&format!("process {}", daemon.pid())), "{verb}: {text}");
    }
}

/// The whole exchange by which containerd skips a download: two namespaces of one containerd, two layers.
#[test]
fn chain_that_the_store_has_is_shown_and_not_fetched_again() {
    needs!(daemon::missing());
    let daemon = Daemon::start();
    let mut client = daemon.client(PLUGIN);
    const REF: &str = "containerd.io/snapshot.ref";
    let diffs = [b"one", b"two"].map(|text| DiffId::from(Digest::of(text)));
    let chains: Vec<String> = ChainId::chains(&diffs).iter().map(ToString::to_string).collect();
    let mut parent = String::new();
    for (at, chain) in chains.iter().enumerate() {
        let key = format!("one/{at}/extract-1-a {chain}");
        let mounts = client.prepare_with(&key, &parent, &[(REF, chain)]).unwrap();
        let upper = mounts[0].options.iter().find_map(|option| option.strip_prefix("upperdir="));
        assert_eq!(mounts[0].r#type, if at == 0 { "bind" } else { "overlay" });
        fs::write(format!("{}/{at}", upper.unwrap_or(&mounts[0].source)), chain).unwrap();
        parent = format!("one/{}/{chain}", 10 + at);
        client.commit(&parent, &key).unwrap();
    }
    let mut below = String::new();
    for chain in &chains {
        let key = format!("two/7/extract-2-b {chain}");
        assert_eq!(code(client.prepare_with(&key, &below, &[(REF, chain)])), Some(Code::AlreadyExists));
        let filter = format!("labels.\"{REF}\"=={chain},parent==\"{below}\"");
        let found = client.list(&[&filter]).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        below = found[0].name.clone();
    }
    let mounted = source(&client.prepare("two/8/container", &below).unwrap());
    assert_eq!(fs::read_to_string(mounted.join("1")).unwrap(), chains[1]);
    // The layers stay while one of the two names them.
    client.remove(&parent).unwrap();
    assert_eq!(fs::read_to_string(mounted.join("0")).unwrap(), chains[0]);
    daemon.clear();
}

#[test]
fn index_of_the_chain_is_used_and_a_foreign_one_passed_over() {
    needs!(daemon::missing());
    let daemon = Daemon::start();
    let mut client = daemon.client(PLUGIN);
    let layer = source(&client.prepare("first", "").unwrap());
    fs::write(layer.join("name"), "text").unwrap();
    client.commit("base", "first").unwrap();
    let index = layer.with_file_name("index");
    let (lower, file) = (format!("lowerdir={}", layer.display()), index.display().to_string());
    machine::run(lamina::binary().to_str().unwrap(), &["index", "build", "-o", &lower, &file]);
    for (key, indexed) in [("with", true), ("without", false)] {
        let mounted = source(&client.prepare(key, "base").unwrap());
        assert_eq!(fs::read_to_string(mounted.join("name")).unwrap(), "text");
        let lines =
            daemon.servers().into_iter().map(|server| fs::read_to_string(format!("/proc/{server}/cmdline")).unwrap());
        let own: Vec<String> = lines.filter(|line| line.contains(mounted.to_str().unwrap())).collect();
        assert_eq!(own.iter().map(|line| line.contains(",index=")).collect::<Vec<_>>(), [indexed]);
        fs::write(&index, "not an index").unwrap();
        client.remove(key).unwrap();
    }
    daemon.clear();
}

#[test]
fn store_is_closed_to_others() {
    needs!(daemon::missing());
    let daemon = Daemon::start();
    let layer = source(&daemon.client(PLUGIN).prepare("first", "").unwrap());
    let tried = machine::shell_as(65_534, &format!("ls {}", layer.display()));
    assert!(!tried.status.success());
    daemon.clear();
}

#[test]
fn user_without_privilege_has_a_store_and_mounts() {
    needs!(daemon::missing(), machine::program("fusermount3"), machine::program("setpriv"));
    // fusermount3 asks for the name of the user: nobody has one.
    const USER: u32 = 65_534;
    let mut daemon = Daemon::start_as(USER);
    let mut client = daemon.client(PLUGIN);
    client.base("base");
    let mounted = source(&client.prepare("container", "base").unwrap());
    let as_user = |script: &str| {
        let output = machine::shell_as(USER, &format!("cd {}; {script}", mounted.display()));
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(as_user("cat base; echo own >own"), "base");
    daemon.kill();
    daemon.restart();
    let mut client = daemon.client(PLUGIN);
    assert_eq!(source(&client.mounts("container").unwrap()), mounted);
    assert_eq!(as_user("cat own; rm base; ls"), "own\nown\n");
    client.commit("image", "container").unwrap();
    daemon.clear();
}

#[test]
fn usage_of_an_active_snapshot_follows_what_is_written() {
    needs!(daemon::missing());
    let (daemon, mounted) = Daemon::with_container();
    let mut client = daemon.client(PLUGIN);
    fs::write(mounted.join("own"), vec![1; 1 << 20]).unwrap();
    assert_eq!(usage(&mut client), walk(&layer_with(&daemon, "own")));
    fs::remove_file(mounted.join("base")).unwrap();
    fs::create_dir_all(mounted.join("a/b")).unwrap();
    assert_eq!(usage(&mut client), walk(&layer_with(&daemon, "own")));
    daemon.clear();
}

#[test]
fn usage_of_an_active_snapshot_survives_the_daemon_and_the_server() {
    needs!(daemon::missing());
    let (mut daemon, mounted) = Daemon::with_container();
    fs::write(mounted.join("own"), vec![1; 1 << 20]).unwrap();
    let layer = layer_with(&daemon, "own");
    daemon.kill();
    fs::write(mounted.join("meanwhile"), vec![1; 1 << 16]).unwrap();
    daemon.restart();
    assert_eq!(usage(&mut daemon.client(PLUGIN)), walk(&layer));
    // The server ends well, and the next one begins with what it has written down.
    let server = rustix::process::Pid::from_raw(daemon.servers()[0]).unwrap();
    let ended = rustix::process::pidfd_open(server, rustix::process::PidfdFlags::empty()).unwrap();
    rustix::process::kill_process(server, rustix::process::Signal::TERM).unwrap();
    let mut wait = [nix::poll::PollFd::new(ended.as_fd(), nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut wait, nix::poll::PollTimeout::NONE), Ok(1));
    let mut client = daemon.client(PLUGIN);
    client.mounts("container").unwrap();
    assert_eq!(usage(&mut client), walk(&layer));
    // Killed, it has written nothing down: then it is counted, once.
    fs::write(mounted.join("own"), vec![1; 1 << 18]).unwrap();
    kill_server(daemon.servers()[0]);
    client.mounts("container").unwrap();
    while usage(&mut client) != walk(&layer) {
        std::thread::yield_now();
    }
    daemon.clear();
}

/// Whatever the layer holds: neither the daemon nor the server reads a directory of it.
#[test]
fn usage_and_commit_read_no_directory() {
    needs!(daemon::missing(), machine::program("strace"));
    let (daemon, mounted) = Daemon::with_container();
    let mut client = daemon.client(PLUGIN);
    fs::create_dir_all(mounted.join("a/b/c")).unwrap();
    fs::write(mounted.join("a/b/own"), vec![1; 1 << 16]).unwrap();
    let layer = layer_with(&daemon, "a");
    let traced = Traced::attach(&[daemon.pid().as_raw(), daemon.servers()[0]]);
    // The trace would show it.
    assert_eq!(fs::read_dir(mounted.join("a/b")).unwrap().count(), 2);
    let read_by_us = traced.directories_below(&layer);
    assert!(!read_by_us.is_empty(), "the server reads a directory for whoever lists it");
    let told = usage(&mut client);
    client.commit("image", "container").unwrap();
    let committed = usage_of(&mut client, "image");
    assert_eq!(traced.end().directories_below(&layer), read_by_us);
    assert_eq!((told, committed), (walk(&layer), walk(&layer)));
    daemon.clear();
}

fn usage(client: &mut Client<'_>) -> (u64, u64) {
    usage_of(client, "container")
}

fn usage_of(client: &mut Client<'_>, key: &str) -> (u64, u64) {
    let told = client.usage(key).expect("usage");
    (told.size.cast_unsigned(), told.inodes.cast_unsigned())
}

/// The directory of the layer that holds a name.
fn layer_with(daemon: &Daemon, name: &str) -> PathBuf {
    let snapshots = fs::read_dir(daemon.root().join("snapshots")).expect("the layers");
    let mut layers = snapshots.map(|entry| entry.expect("a layer").path().join("fs"));
    layers.find(|layer| layer.join(name).exists()).expect("a layer that holds the name")
}

#[test]
fn usage_of_a_committed_snapshot_is_exact_and_its_own() {
    needs!(daemon::missing());
    let (daemon, mounted) = Daemon::with_container();
    let mut client = daemon.client(PLUGIN);
    fs::write(mounted.join("own"), vec![1; 1 << 20]).unwrap();
    fs::hard_link(mounted.join("own"), mounted.join("same")).unwrap();
    client.commit("image", "container").unwrap();
    let usage = client.usage("image").unwrap();
    assert_eq!(usage.inodes, 2, "{usage:?}");
    assert!((1 << 20..2 << 20).contains(&usage.size), "{usage:?}");
    assert_eq!(code(client.usage("container")), Some(Code::NotFound));
    daemon.clear();
}
