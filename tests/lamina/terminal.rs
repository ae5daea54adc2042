//! A container in a terminal: a person at a shell, resizing, interrupting, stopping jobs.

use std::fs;
use std::process::Command;

use support::person::Person;
use support::tmux::Tmux;
use support::{machine, needs};

use crate::place::{IMAGE, Place, Way};

#[test]
fn a_shell_in_a_container_has_size_interrupt_and_job_control() {
    for way in [Way::Root, Way::ManyIds, Way::OneId] {
        needs!(way.missing(), machine::program("setsid"));
        let place = Place::new(way);
        let mut person =
            Person::sit_down(&place.command(&["run", "-it", "--name", "one", "-e", "PS1=> ", IMAGE, "sh"]));
        person.tries_the_shell();
        person.types("kill -9 %1; exec sh -c 'exit 5'\r");
        let code = person.child.wait().unwrap().code();
        assert_eq!(code, Some(5), "{way:?}");
        // What was on the screen is in the log.
        assert!(place.lamina(&["logs", "one"]).ok().contains("resized"), "{way:?}");
        let after = rustix::termios::tcgetattr(&person.terminal).unwrap();
        assert!(after.local_modes.contains(rustix::termios::LocalModes::ECHO | rustix::termios::LocalModes::ICANON));
    }
}

#[test]
fn exec_gives_a_terminal_in_a_container_that_has_none() {
    needs!(Way::ManyIds.missing(), machine::program("setsid"));
    let place = Place::new(Way::ManyIds);
    place.running("web");
    let words = ["exec", "-it", "web", "sh", "-c", "tty; stty size; read line; echo got $line; exit 4"];
    let mut person = Person::sit_down(&place.command(&words));
    person.sees("/dev/pts/");
    person.sees("24 80");
    person.types("hello\r");
    person.sees("got hello");
    assert_eq!(person.child.wait().unwrap().code(), Some(4));
}

/// Nobody looks, and the program has a terminal all the same, which the monitor holds.
#[test]
fn a_container_in_the_background_keeps_its_terminal() {
    needs!(Way::Root.missing());
    let place = Place::new(Way::Root);
    place.lamina(&["run", "-dt", "--name", "one", IMAGE, "sh", "-c", "tty; exit 6"]).ok();
    assert_eq!(place.lamina(&["wait", "one"]).ok(), "6\n");
    assert_eq!(place.lamina(&["logs", "one"]).ok().trim_end(), "/dev/pts/0");
}

/// Says when it is in the foreground, when the terminal has another size, and when it goes on; ends by an interrupt only.
const JOB: &str = "trap 'echo size $(stty size)' WINCH; trap \"echo $0 goes on\" CONT; echo $0 waits; while :; do sleep 100000 & wait; done";

/// A command as a line for a shell.
fn quoted(command: &Command) -> String {
    let set = command.get_envs().map(|(name, value)| match value {
        Some(value) => format!("{}={}", name.display(), value.display()),
        None => format!("--unset={}", name.display()),
    });
    let words = command.get_args().map(|word| word.display().to_string());
    let program = command.get_program().display().to_string();
    // Options of env(1) go before what it sets.
    let (unset, set): (Vec<String>, Vec<String>) = set.partition(|word| word.starts_with("--unset="));
    let all = unset.into_iter().chain(set).chain([program]).chain(words);
    all.fold("exec env".to_owned(), |line, word| format!("{line} '{}'", word.replace('\'', "'\\''")))
}

/// What a person does at a terminal, on a real one with a screen.
#[test]
fn under_tmux_a_shell_follows_the_window_controls_jobs_and_edits_a_file() {
    for way in Way::ALL {
        needs!(way.missing(), machine::program("tmux"), machine::program("env"));
        let place = Place::new(way);
        let job = format!("JOB={JOB}");
        let words = ["run", "-it", "--name", "one", "-e", "PS1=inside> ", "-e", &job, IMAGE, "sh"];
        fs::write(place.home.path().join("one"), quoted(&place.command(&words))).unwrap();
        let mut tmux = Tmux::start(place.home.path());
        tmux.types("before=$(stty -g); sh ./one; echo ended $?\r");
        tmux.sees("inside>");
        tmux.types("echo size: $(stty size)\r");
        tmux.sees("size: 24 80");

        tmux.types("sh -c \"$JOB\" first\r");
        tmux.sees("first waits");
        tmux.resize(40, 100);
        tmux.sees("size 40 100");
        tmux.types("\u{3}");
        tmux.types("echo code $? size: $(stty size)\r");
        tmux.sees("code 130 size: 40 100");

        tmux.types("sh -c \"$JOB\" second\r");
        tmux.sees("second waits");
        tmux.types("\u{1a}");
        tmux.sees("Stopped");
        tmux.types("jobs | tr a-z A-Z\r");
        tmux.sees("STOPPED");
        tmux.types("fg\r");
        tmux.sees("second goes on");
        tmux.types("\u{3}");
        tmux.types("echo again $?\r");
        tmux.sees("again 130");

        tmux.types("vi /note; echo le''ft\r");
        // What an empty file looks like in vi.
        tmux.sees("\n~\n~\n");
        tmux.types("iwritten");
        tmux.sees("written\n~");
        // An escape that something follows at once would be taken for a key; the status line says when it was not.
        tmux.types("\u{1b}");
        tmux.sees("- /note");
        tmux.types(":wq\r");
        tmux.sees("left");
        tmux.types("cat /note | tr a-z A-Z; exit 5\r");
        tmux.sees("ended 5");
        assert!(tmux.screen().contains("WRITTEN"), "{way:?}: {}", tmux.screen());

        // The terminal is the person's again: as it was, with an echo, and the screen that it had.
        tmux.types("[ \"$(stty -g)\" = \"$before\" ] && echo as be''fore || stty -a\r");
        tmux.sees("as before");
        assert!(tmux.screen().contains("echo as be''fore"), "{way:?}: {}", tmux.screen());
        assert_eq!(tmux.knows("#{alternate_on} #{cursor_flag} #{keypad_flag}"), "0 1 0", "{way:?}");
        drop(tmux);
        let shown: serde_json::Value = serde_json::from_str(&place.lamina(&["inspect", "one"]).ok()).unwrap();
        let upper = shown[0]["GraphDriver"]["Data"]["UpperDir"].as_str().unwrap();
        assert_eq!(fs::read_to_string(format!("{upper}/note")).unwrap(), "written\n", "{way:?}");
    }
}
