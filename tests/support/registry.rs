//! Debian's docker-registry on a loopback port, and a line to it that cuts itself or stops. It owns the process, its storage and the threads
//! of the line. Invariant: ports are the kernel's choice, read from whoever got them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use crate::machine;
use crate::token_server::{ISSUER, SERVICE, TokenServer};
use tempfile::TempDir;

/// A user called `user` with the password `right`, for htpasswd authentication.
const HTPASSWD: &str = "user:$2b$05$abcdefghijklmnopqrstuu8xaCxxL82bnl.UY74PMksDxIJShppPC\n";

/// A running registry.
pub struct Server {
    child: Child,
    home: TempDir,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
}

impl Server {
    /// What it needs and this machine lacks.
    pub fn missing() -> Option<String> {
        machine::program("docker-registry")
    }

    /// Anybody may do anything.
    pub fn open() -> Server {
        Server::start("")
    }

    /// Only `user` may, with the password `right`.
    pub fn with_password() -> Server {
        Server::start("auth:\n  htpasswd:\n    realm: test\n    path: HOME/htpasswd\n")
    }

    /// Only who has a token may, from the server that is started beside it.
    pub fn with_tokens() -> Server {
        let home = Server::home();
        let tokens = TokenServer::start(home.path());
        let auth = format!(
            "auth:\n  token:\n    realm: http://127.0.0.1:{}/token\n    service: {SERVICE}\n    issuer: {ISSUER}\n    rootcertbundle: {}\n",
            tokens.port,
            tokens.certificate.display()
        );
        Server::start_in(home, &auth)
    }

    fn start(auth: &str) -> Server {
        Server::start_in(Server::home(), auth)
    }

    fn home() -> TempDir {
        tempfile::Builder::new().prefix("lamina-registry-").tempdir().expect("mkdir")
    }

    fn start_in(home: TempDir, auth: &str) -> Server {
        let path = home.path().display().to_string();
        std::fs::write(home.path().join("htpasswd"), HTPASSWD).expect("write");
        let config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: HOME/data\nhttp:\n  addr: 127.0.0.1:0\n{auth}"
        );
        std::fs::write(home.path().join("config.yml"), config.replace("HOME", &path)).expect("write");
        let mut child = Command::new(machine::find_program("docker-registry").expect("it was looked for"))
            .args(["serve", &format!("{path}/config.yml")])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry starts");
        let mut log = BufReader::new(child.stderr.take().expect("pipe"));
        let mut line = String::new();
        let port = loop {
            line.clear();
            assert!(log.read_line(&mut line).expect("read") > 0, "docker-registry ended before it listened");
            if let Some((_, rest)) = line.split_once("listening on 127.0.0.1:") {
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                break digits.parse().expect("a port");
            }
        };
        // It logs every request, and would stop where nobody reads.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Server { child, home, port }
    }

    /// The file in which it keeps a blob.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.home.path().join("data/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("docker-registry: {error}");
        }
    }
}

/// A line to a registry that is cut, or stops, once so many bytes have gone through, and counts them.
pub struct Line {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    returned: AtomicU64,
    cuts: AtomicUsize,
    /// The count of returned bytes at which nothing more comes, until it is `None`.
    stop: Mutex<Option<u64>>,
    goes_on: Condvar,
}

impl Line {
    /// `cuts` are the counts of returned bytes, ascending, at which the connection that carries them is cut.
    pub fn to(server: u16, cuts: &'static [u64]) -> Line {
        Line::open(server, &[], cuts, None)
    }

    /// The same with counts of bytes that are sent to it.
    pub fn that_cuts_what_is_sent(server: u16, cuts: &'static [u64]) -> Line {
        Line::open(server, cuts, &[], None)
    }

    /// Stops once so many bytes have come back, or a few more on lines beside each other, until `go_on`.
    pub fn that_stops(server: u16, at: u64) -> Line {
        Line::open(server, &[], &[], Some(at))
    }

    fn open(server: u16, sent: &'static [u64], returned: &'static [u64], stop: Option<u64>) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let counts = Arc::new(Counts { stop: Mutex::new(stop), ..Counts::default() });
        let shared = Arc::clone(&counts);
        // The threads end with the test's process; none holds what outlives it.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(upstream) = TcpStream::connect(("127.0.0.1", server)) else { return };
                let (from, to) = (client.try_clone().expect("dup"), upstream.try_clone().expect("dup"));
                let counts = Arc::clone(&shared);
                std::thread::spawn(move || carry(from, to, |bytes| counts.cut(&counts.sent, bytes, sent)));
                let counts = Arc::clone(&shared);
                std::thread::spawn(move || {
                    carry(upstream, client, |bytes| {
                        let cut = counts.cut(&counts.returned, bytes, returned);
                        counts.wait();
                        cut
                    });
                });
            }
        });
        Line { port, counts }
    }

    /// Lets everything through from now on.
    pub fn go_on(&self) {
        *self.counts.stop.lock().expect("no thread panicked") = None;
        self.counts.goes_on.notify_all();
    }

    /// Bytes that came back from the registry.
    pub fn returned(&self) -> u64 {
        self.counts.returned.load(Ordering::SeqCst)
    }

    /// Bytes that were sent to the registry.
    pub fn sent(&self) -> u64 {
        self.counts.sent.load(Ordering::SeqCst)
    }

    /// How often it was cut.
    pub fn cuts(&self) -> usize {
        self.counts.cuts.load(Ordering::SeqCst)
    }
}

impl Counts {
    /// Counts, and says whether this connection ends here.
    fn cut(&self, count: &AtomicU64, bytes: u64, cuts: &[u64]) -> bool {
        let total = count.fetch_add(bytes, Ordering::SeqCst) + bytes;
        let at = self.cuts.load(Ordering::SeqCst);
        cuts.get(at).is_some_and(|cut| total >= *cut)
            && self.cuts.compare_exchange(at, at + 1, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Waits where it stops.
    fn wait(&self) {
        let stopped = self.stop.lock().expect("no thread panicked");
        let holds = |stop: &mut Option<u64>| stop.is_some_and(|stop| self.returned.load(Ordering::SeqCst) >= stop);
        drop(self.goes_on.wait_while(stopped, holds).expect("no thread panicked"));
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, cut: impl Fn(u64) -> bool) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).unwrap_or(0);
        // Whichever side ends first ends both.
        if read == 0 || to.write_all(&buffer[..read]).is_err() || cut(read as u64) {
            let ended = to.shutdown(Shutdown::Both).and(from.shutdown(Shutdown::Both));
            return ended.unwrap_or_default();
        }
    }
}
