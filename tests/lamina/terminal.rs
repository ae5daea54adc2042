//! A container in a terminal: a person at a shell, resizing, interrupting, stopping jobs.

use support::person::Person;
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
