//! A terminal as people have it: tmux, which keeps a screen. It owns the server, whose socket lies in the test's directory. Invariant: every wait is for
//! the screen to change, none for a time; and the server ends with its one client, which ends with the test, however that ends.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::machine;

/// The session goes with its client, and the server with its last session.
const SETTINGS: &str = "set -g destroy-unattached on\nset -g default-terminal screen\n";

/// A shell at a terminal of tmux, driven through tmux's control mode (CONTROL MODE in tmux(1)).
pub struct Tmux {
    client: Child,
    commands: Option<ChildStdin>,
    told: BufReader<ChildStdout>,
}

impl Tmux {
    /// A `sh` on a screen of 24 rows; `dir` takes the socket. What is typed before the shell reads waits for it.
    #[track_caller]
    pub fn start(dir: &Path) -> Tmux {
        let settings = dir.join("tmux.conf");
        std::fs::write(&settings, SETTINGS).expect("a file of settings");
        let mut command = Command::new("tmux");
        command.arg("-S").arg(dir.join("tmux.socket")).arg("-f").arg(settings);
        command.args(["-C", "new-session", "-x", "80", "-y", "24", "sh"]).env_remove("TMUX").env_remove("ENV");
        command.current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut client = machine::start(&mut command);
        let (commands, told) = (client.stdin.take(), client.stdout.take().expect("a pipe"));
        let mut tmux = Tmux { client, commands, told: BufReader::new(told) };
        // Until then the client has no session that a command could be about.
        while !tmux.line("a session").starts_with("%session-changed ") {}
        tmux
    }

    /// Types keys, control characters among them.
    #[track_caller]
    pub fn types(&mut self, keys: &str) {
        let codes: Vec<String> = keys.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.command(&format!("send-keys -H {}", codes.join(" ")));
    }

    /// Gives the window another size.
    #[track_caller]
    pub fn resize(&mut self, rows: u16, columns: u16) {
        self.command(&format!("resize-window -x {columns} -y {rows}"));
    }

    /// What is on the screen.
    #[track_caller]
    pub fn screen(&mut self) -> String {
        self.command("capture-pane -p")
    }

    /// Waits until this is on the screen.
    #[track_caller]
    pub fn sees(&mut self, text: &str) {
        loop {
            // Whatever changes after this answer is told of after it.
            let screen = self.screen();
            if screen.contains(text) {
                return;
            }
            while !self.line(&screen).starts_with("%output ") {}
        }
    }

    /// What tmux knows of the terminal: a format such as `#{alternate_on}`.
    #[track_caller]
    pub fn knows(&mut self, format: &str) -> String {
        self.command(&format!("display-message -p '{format}'")).trim_end().to_owned()
    }

    /// Has tmux do something; answers what it said.
    #[track_caller]
    fn command(&mut self, words: &str) -> String {
        writeln!(self.commands.as_mut().expect("open until the end"), "{words}").expect("tmux takes commands");
        loop {
            let line = self.line(words);
            // The last number is 1 for commands of this client: the first answer is to the command line.
            if line.starts_with("%begin ") {
                let (answer, good) = self.answer(words);
                if line.ends_with(" 1") {
                    assert!(good, "{words}: {answer}");
                    return answer;
                }
            }
        }
    }

    /// The rest of an answer, and whether it is no error.
    #[track_caller]
    fn answer(&mut self, words: &str) -> (String, bool) {
        let mut answer = String::new();
        loop {
            let line = self.line(words);
            if line.starts_with("%end ") || line.starts_with("%error ") {
                return (answer, line.starts_with("%end "));
            }
            answer.push_str(&line);
            answer.push('\n');
        }
    }

    /// The next line that tmux tells; panics at its end with what was awaited or seen.
    #[track_caller]
    fn line(&mut self, seen: &str) -> String {
        let mut line = Vec::new();
        let length = self.told.read_until(b'\n', &mut line).expect("tmux is read");
        let line = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
        assert!(length > 0 && !line.starts_with("%exit"), "tmux ended: {line}\n{seen}");
        line
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        // At the end of its input the client leaves, and with it all the rest.
        drop(self.commands.take());
        if let Err(error) = self.client.wait() {
            eprintln!("tmux: {error}");
        }
    }
}
