//! What a command said and answered, once it has ended.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::process::Command;

use crate::machine;

/// A command that has ended.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Said {
    /// Runs a command to its end. Its streams are files: a container that outlives it may keep them, and the end of a pipe would be awaited.
    #[track_caller]
    pub fn of(command: &mut Command) -> Said {
        let file = || tempfile::tempfile().expect("a file for a stream");
        let (mut out, mut err) = (file(), file());
        let again = |file: &File| file.try_clone().expect("dup");
        command.stdout(again(&out)).stderr(again(&err));
        let status = machine::start(command).wait().expect("it ends");
        Said { code: status.code(), out: text(&mut out), err: text(&mut err) }
    }

    /// The standard output of a command that succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// The standard error of a command that failed with this code.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        self.err
    }

    /// The standard error of a command that failed, with whatever code: not all runtimes answer the same.
    #[track_caller]
    pub fn refuses(self) -> String {
        assert!(self.code.is_some_and(|code| code != 0), "it should have failed: {self:?}");
        self.err
    }
}

fn text(stream: &mut File) -> String {
    let mut bytes = Vec::new();
    stream.rewind().and_then(|()| stream.read_to_end(&mut bytes)).expect("what it said");
    String::from_utf8_lossy(&bytes).into_owned()
}
