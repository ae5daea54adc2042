//! A person at a terminal, as far as a test can be one. It owns the terminal. Invariant: every wait is for something to be seen, none for a time.

use std::os::fd::OwnedFd;
use std::process::{Child, Command};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// A terminal with a program at it.
pub struct Person {
    /// What the person types into and looks at.
    pub master: OwnedFd,
    /// The program's end.
    pub terminal: OwnedFd,
    /// The program.
    pub child: Child,
    seen: String,
}

impl Person {
    /// Starts the command at a terminal of its own, with its variables.
    pub fn sit_down(command: &Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        unlockpt(&master).expect("unlocked");
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = ioctl_tiocgptpeer(&master, flags).expect("the other end");
        resize(&master, 24, 80);
        let stream = || terminal.try_clone().expect("a copy");
        let mut seated = Command::new("setsid");
        seated.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => seated.env(name, value),
                None => seated.env_remove(name),
            };
        }
        let child = crate::machine::start(seated.stdin(stream()).stdout(stream()).stderr(stream()));
        Person { master, terminal, child, seen: String::new() }
    }

    /// Types keys.
    pub fn types(&self, keys: &str) {
        rustix::io::write(&self.master, keys.as_bytes()).expect("keys");
    }

    /// Reads until the text is on the screen, and forgets what was until then, which it answers.
    #[track_caller]
    pub fn sees(&mut self, text: &str) -> String {
        let mut buffer = [0_u8; 4096];
        while !self.seen.contains(text) {
            self.wait_for_more(text);
            let length = rustix::io::read(&self.master, &mut buffer)
                .unwrap_or_else(|errno| panic!("{errno} after {:?}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        let end = self.seen.find(text).map_or(0, |at| at + text.len());
        self.seen.drain(..end).collect()
    }
}

impl Person {
    /// At a shell that a terminal of 24 rows was given, with the prompt `> `: another size, an interrupt, and a job that is stopped and left so.
    #[track_caller]
    pub fn tries_the_shell(&mut self) {
        self.sees("> ");
        self.types("tty; stty size\r");
        self.sees("/dev/pts/0");
        self.sees("24 80");
        resize(&self.master, 40, 100);
        self.types("until [ \"$(stty size)\" = '40 100' ]; do :; done; echo re''sized\r");
        self.sees("resized");
        self.types("sh -c 'echo wait''ing; exec sleep 100000'\r");
        self.sees("waiting");
        self.types("\u{3}");
        self.sees("> ");
        self.types("echo co''de $?\r");
        self.sees("code 130");
        self.types("sh -c 'echo wait''ing; exec sleep 100000'\r");
        self.sees("waiting");
        self.types("\u{1a}");
        self.sees("Stopped");
    }

    /// Waits until there is something to read. We hold the program's end too, so that reading alone would outwait its end.
    #[track_caller]
    fn wait_for_more(&self, text: &str) {
        let program = Pid::from_child(&self.child);
        let program = pidfd_open(program, PidfdFlags::empty()).expect("our child, not yet waited for");
        let mut either = [PollFd::new(&self.master, PollFlags::IN), PollFd::new(&program, PollFlags::IN)];
        poll(&mut either, None).expect("poll");
        let [screen, ended] = either.map(|one| !one.revents().is_empty());
        assert!(screen || !ended, "the program ended; {text:?} is not in {:?}", self.seen);
    }
}

/// Gives a terminal a size.
pub fn resize(master: &OwnedFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).expect("a size");
}
