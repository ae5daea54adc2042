//! Lamina for a user without privileges, in the two ways there are: with fusermount3, and with mount(2) in a user namespace of one's own.
//!
//! - `basics`: one test for each thing a container does all day.
//! - `oracle`: the random sequences, beside the model.
//!
//! Started by root, each test runs itself again as a plain user. /dev/fuse is 0600 on some machines: for the plain user a node of mode 0666
//! is bound over it, in a mount namespace of the test's own, so that the machine's stays as it is. Started by a plain user, each test runs as that user.

mod basics;
mod oracle;

use std::path::PathBuf;
use std::process::Command;

use support::{machine, needs, skip};

/// Set in the second run: which of the two ways it is in.
const WAY: &str = "LAMINA_ROOTLESS_WAY";

/// Steps down to a user that exists, as fusermount3 asks for its name. `$1` is the user; the rest is the command.
const STEP_DOWN: &str =
    "mount -t tmpfs none /mnt && mknod -m 666 /mnt/fuse c 10 229 && mount --bind /mnt/fuse /dev/fuse
    user=$1; shift
    exec setpriv --reuid \"$user\" --regid \"$user\" --clear-groups --inh-caps=-all \"$@\"";

/// The first ordinary user of the machine, else one that every system has.
fn plain_user() -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ids = users.lines().filter_map(|line| line.split(':').nth(2)?.parse::<u32>().ok());
    ids.filter(|id| (1000..60_000).contains(id)).min().unwrap_or(1).to_string()
}

/// Runs `body` as a plain user, once in each way. `name` is the test's own.
fn rootless(name: &str, body: fn()) {
    if std::env::var_os(WAY).is_some() {
        return body();
    }
    needs!(machine::filesystem("fuse"), machine::program("fusermount3"));
    needs!(machine::program("unshare"), machine::program("setpriv"));
    run_again("fusermount3", name, &[]);
    run_again("user namespace", name, &["unshare", "-Ur", "-m"]);
}

fn run_again(way: &str, name: &str, inside: &[&str]) {
    let test: PathBuf = std::env::current_exe().expect("path of the test binary");
    let mut words: Vec<&str> = Vec::new();
    let user = plain_user();
    if machine::is_root() {
        words.extend(["unshare", "-m", "sh", "-euc", STEP_DOWN, "sh", &user]);
    }
    words.extend(inside);
    let test = test.to_str().expect("UTF-8");
    words.extend([test, name, "--exact", "--nocapture", "--test-threads=1"]);
    let binary = support::lamina::binary();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env(WAY, way).env("LAMINA_FS", binary).env("TMPDIR", "/tmp");
    let output = command.output().unwrap_or_else(|error| panic!("{}: {error}", words[0]));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if inside.len() > 1 && said.contains("unshare: unshare failed") {
        skip!("this machine gives plain users no user namespaces: {}", said.trim());
    }
    assert!(output.status.success(), "as user {user} with {way}:\n{said}");
    assert!(said.contains("1 passed"), "the test did not run again as user {user} with {way}:\n{said}");
}
