//! Which directories a running process reads: strace, attached to it. Owns attaching and letting go.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

/// strace on processes that run, until dropped.
pub struct Traced {
    strace: Child,
    /// What it says of each further thread: it would end if nobody held this.
    said: BufReader<ChildStderr>,
    home: tempfile::TempDir,
}

impl Traced {
    /// Returns when it is attached to all of them.
    pub fn attach(processes: &[i32]) -> Traced {
        let home = tempfile::tempdir().expect("temporary directory");
        let mut command = Command::new("strace");
        command.args(["-f", "-y", "-e", "trace=getdents64", "-o"]).arg(home.path().join("trace"));
        for process in processes {
            command.args(["-p", &process.to_string()]);
        }
        let mut strace = command.stderr(Stdio::piped()).spawn().expect("strace starts");
        let mut said = BufReader::new(strace.stderr.take().expect("a pipe"));
        let lines = said.by_ref().lines().map_while(Result::ok);
        let attached = lines.filter(|line| line.contains("attached")).take(processes.len()).count();
        assert_eq!(attached, processes.len());
        Traced { strace, said, home }
    }

    /// Ends the trace: what has happened so far is in it. Not by an interrupt, which whatever a script starts in the background ignores.
    pub fn end(mut self) -> Traced {
        let strace = rustix::process::Pid::from_child(&self.strace);
        rustix::process::kill_process(strace, rustix::process::Signal::TERM).expect("it runs");
        // Until it closes the pipe, which must not fill.
        std::io::copy(&mut self.said, &mut std::io::sink()).expect("it closes the pipe");
        self.strace.wait().expect("its end");
        self
    }

    /// Lines of the trace that name a directory of a tree.
    pub fn directories_below(&self, tree: &Path) -> Vec<String> {
        let trace = fs::read_to_string(self.home.path().join("trace")).expect("the trace");
        let tree = tree.to_str().expect("UTF-8");
        trace.lines().filter(|line| line.contains(tree)).map(str::to_owned).collect()
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // After `end` it is gone.
        drop(self.strace.kill());
        drop(self.strace.wait());
    }
}
