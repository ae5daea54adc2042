//! A terminal under a terminal: a person at a shell, as far as a test can be one.

use crate::bundle::Bundle;
use rustix::termios::tcgetattr;
use serde_json::json;
use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use support::person::Person;
use support::{machine, needs};

fn missing() -> Option<String> {
    machine::root().or_else(|| machine::program("busybox")).or_else(|| machine::program("setsid"))
}

#[test]
fn a_shell_has_size_interrupt_job_control_and_an_editor() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    bundle
        .set("/process/terminal", json!(true))
        .set("/process/args", json!(["sh"]))
        .push("/process/env", json!("PS1=> "));
    bundle.write();
    let mut person =
        Person::sit_down(&bundle.command(&["run", "--bundle", bundle.path().to_str().expect("UTF-8"), &bundle.id]));
    person.tries_the_shell();
    person.types("kill -9 %1; wait; vi /tmp/note\r");
    // What an empty file looks like in vi.
    person.sees("~");
    person.types("iwritten");
    person.sees("written");
    // An escape that something follows at once would be taken for a key; the status line says when it was not.
    person.types("\u{1b}");
    person.sees("- /tmp/note");
    person.types(":wq\r");
    person.sees("> ");
    person.types("cat /tmp/note; exit 5\r");
    person.sees("written");
    assert_eq!(person.child.wait().expect("the runtime ends").code(), Some(5));
    let after = tcgetattr(&person.terminal).expect("the terminal");
    assert!(after.local_modes.contains(rustix::termios::LocalModes::ECHO | rustix::termios::LocalModes::ICANON));
}

#[test]
fn exec_has_a_terminal_of_its_own() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    bundle.running();
    let mut person = Person::sit_down(&bundle.command(&[
        "exec",
        "--tty",
        &bundle.id,
        "sh",
        "-c",
        "tty; stty size; read line; echo got $line; exit 4",
    ]));
    person.sees("/dev/pts/");
    person.sees("24 80");
    person.types("this\r");
    person.sees("got this");
    assert_eq!(person.child.wait().expect("the runtime ends").code(), Some(4));
}

/// What a runtime sends to a socket: a descriptor, and the name that goes with it.
pub fn receive(listener: &UnixListener) -> (Vec<u8>, OwnedFd) {
    let (stream, _) = listener.accept().expect("a connection");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let mut name = vec![0_u8; 64];
    let flags = rustix::net::RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(&stream, &mut [IoSliceMut::new(&mut name)], &mut control, flags);
    name.truncate(received.expect("a message").bytes);
    let descriptor = control.drain().find_map(|message| match message {
        rustix::net::RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    (name, descriptor.expect("a descriptor"))
}

#[test]
fn the_console_socket_receives_the_terminal() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    let path = bundle.path().join("socket");
    let listener = UnixListener::bind(&path).expect("a socket");
    bundle.set("/process/terminal", json!(true)).set("/process/consoleSize", json!({"height": 30, "width": 90}));
    bundle.script("stty size").write();
    bundle.verb(&["create", "--console-socket", path.to_str().expect("UTF-8"), &bundle.id]).ok();
    let (name, master) = receive(&listener);
    assert_eq!(name, b"/dev/ptmx");
    bundle.start().ok();
    let mut text = Vec::new();
    // The end of a terminal is an error on Linux.
    let ended = std::fs::File::from(master).read_to_end(&mut text);
    assert!(ended.is_ok() || ended.is_err_and(|error| error.raw_os_error() == Some(libc::EIO)));
    assert_eq!(String::from_utf8_lossy(&text), "30 90\r\n");
}

#[test]
fn a_terminal_without_a_place_to_go_is_an_error() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    assert!(bundle.set("/process/terminal", json!(true)).create().refuses().contains("--console-socket"));
    let bundle = Bundle::ours();
    bundle.write();
    bundle.verb(&["create", "--console-socket", "/nowhere", &bundle.id]).refuses();
}

/// Signals that the runtime gets in the foreground are the container's.
#[test]
fn signals_are_passed_on() {
    needs!(missing());
    let mut bundle = Bundle::ours();
    bundle.script("trap 'echo heard; exit 3' TERM; echo ready; while :; do sleep 100000 & wait; done").write();
    let mut command = bundle.command(&["run", &bundle.id]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("run");
    let mut output = child.stdout.take().expect("its output");
    let mut ready = [0_u8; 6];
    output.read_exact(&mut ready).expect("ready");
    let pid = rustix::process::Pid::from_raw(child.id() as i32).expect("a number");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
    assert_eq!(child.wait().expect("the runtime ends").code(), Some(3));
}
