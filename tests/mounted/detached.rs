//! A mount by descriptor: made attached nowhere, served by `lamina-fs /dev/fd/N`, put into the tree by whoever holds it.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use lamina_fs::fuse::detached::{self, Detached};
use lamina_fs::options::{Environment, Invocation, Options, ProgramName};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};
use support::lamina::binary;
use support::{Layers, file, machine, needs};

/// The mount of these options, made here.
fn mount(layers: &Layers) -> Detached {
    let environment = Environment { name: ProgramName::LaminaFs, root: true, dot_whiteouts: false };
    let words = ["-o", &layers.options(), "/dev/fd/9"].map(Into::into);
    let Invocation::Mount(options) = Options::parse(words, &environment).unwrap() else { panic!("a mount") };
    detached::mount(&options.mount).unwrap()
}

/// The server of a device, which it gets as descriptor 9.
fn serve(options: &str, device: OwnedFd, ground: &[&str]) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" 9<&0 </dev/null", "sh"]).arg(binary()).args(ground);
    command.args(["-o", options, "/dev/fd/9"]).stdin(Stdio::from(device)).stderr(Stdio::piped());
    machine::start(&mut command)
}

fn attach(mount: &OwnedFd, at: &Path) {
    move_mount(mount, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
}

#[test]
fn server_of_a_given_device_ends_with_the_last_mount_of_it() {
    needs!(machine::root(), machine::fuse());
    let layers = Layers::new(&[&[file("f", "x")]]);
    let Detached { device, mount } = mount(&layers);
    let mut server = serve(&layers.options(), device, &["-f"]);
    attach(&mount, &layers.merged);
    let read = fs::read(layers.merged.join("f")).unwrap();
    fs::write(layers.merged.join("made"), "by the mount").unwrap();
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.contains(layers.merged.to_str().unwrap())).unwrap().to_owned();
    unmount(&layers.merged, UnmountFlags::DETACH).unwrap();
    assert!(server.try_wait().unwrap().is_none(), "our descriptor still holds the mount");
    drop(mount);
    assert!(server.wait().unwrap().success());
    assert_eq!(read, b"x");
    assert!(line.contains("fuse.lamina-fs") && line.contains("default_permissions,allow_other"), "{line}");
    assert_eq!(fs::read(layers.upper.join("made")).unwrap(), b"by the mount");
    assert!(!layers.work.join("locked").exists());
}

#[test]
fn in_the_background_the_command_returns_when_the_mount_answers() {
    needs!(machine::root(), machine::fuse());
    let layers = Layers::new(&[&[file("f", "x")]]);
    let Detached { device, mount } = mount(&layers);
    assert!(serve(&layers.options(), device, &[]).wait().unwrap().success());
    attach(&mount, &layers.merged);
    let read = fs::read(layers.merged.join("f"));
    unmount(&layers.merged, UnmountFlags::DETACH).unwrap();
    assert_eq!(read.unwrap(), b"x");
}

/// Nobody must think that it served: the mount of a device that nobody reads would hang whoever looks at it.
#[test]
fn what_is_no_mounted_device_is_refused_in_a_sentence() {
    needs!(machine::root(), machine::fuse());
    let layers = Layers::new(&[&[]]);
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    for (device, number) in [(Some(null), "9"), (None, "77")] {
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$@\" 9<&0 </dev/null", "sh"]).arg(binary());
        command.args(["-f", "-o", &layers.options()]).arg(format!("/dev/fd/{number}"));
        command.stdin(device.map_or_else(Stdio::null, Stdio::from)).stderr(Stdio::piped());
        let output = machine::start(&mut command).wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("cannot serve /dev/fd/{number}")), "{said}");
    }
}

/// As a user without privileges, in namespaces of its own: the server is in that user namespace, and in another mount namespace than the mount.
#[test]
fn a_plain_user_mounts_by_descriptor_in_a_namespace_of_his_own() {
    const NAME: &str = "detached::a_plain_user_mounts_by_descriptor_in_a_namespace_of_his_own";
    use support::rootless::{Way, again};
    match Way::current() {
        None => {
            [Way::OneId, Way::ManyIds].into_iter().for_each(|way| again(way, &[NAME, "--exact", "--test-threads=1"]))
        }
        Some(_) => {
            let layers = Layers::new(&[&[file("f", "x")]]);
            let Detached { device, mount } = mount(&layers);
            let mut server = serve(&layers.options(), device, &["-f"]);
            // The mount goes into a mount namespace that is another one than the server's.
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            attach(&mount, &layers.merged);
            drop(mount);
            fs::write(layers.merged.join("made"), "inside").unwrap();
            assert_eq!(fs::read(layers.merged.join("f")).unwrap(), b"x");
            unmount(&layers.merged, UnmountFlags::empty()).unwrap();
            assert!(server.wait().unwrap().success());
            assert_eq!(fs::read(layers.upper.join("made")).unwrap(), b"inside");
        }
    }
}
