//! A user without privileges, in each way in which such a user can mount. It owns stepping down to one. Invariant: the machine stays as it is:
//! what the user needs and the machine keeps from it is bound over, in a mount namespace of the test's own.

use std::path::Path;
use std::process::{Command, Output};

use crate::{lamina, machine};

/// Set in the second run of a test: which way it is in.
const WAY: &str = "LAMINA_ROOTLESS_WAY";

/// How a user without privileges mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// With fusermount3, which is setuid.
    Fusermount3,
    /// With mount(2), as root of a user namespace of its own that holds this one user.
    OneId,
    /// The same with a range of subordinate ids, which newuidmap(1) maps.
    ManyIds,
}

impl Way {
    /// All of them.
    pub const ALL: [Way; 3] = [Way::Fusermount3, Way::OneId, Way::ManyIds];

    /// The way that this process is in; `None` in a first run.
    pub fn current() -> Option<Way> {
        let name = std::env::var(WAY).ok()?;
        Way::ALL.into_iter().find(|way| way.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Way::Fusermount3 => "fusermount3",
            Way::OneId => "one id",
            Way::ManyIds => "many ids",
        }
    }

    fn enter(self) -> &'static [&'static str] {
        match self {
            Way::Fusermount3 => &[],
            Way::OneId => &["unshare", "--user", "--map-root-user", "--mount"],
            Way::ManyIds => &["unshare", "--user", "--map-root-user", "--map-auto", "--mount"],
        }
    }

    fn missing(self) -> Option<String> {
        let common = machine::filesystem("fuse").or_else(|| machine::program("setpriv"));
        common.or_else(|| match self {
            Way::Fusermount3 => machine::program("fusermount3"),
            Way::OneId => machine::program("unshare"),
            Way::ManyIds => machine::program("unshare").or_else(|| machine::program("newuidmap")).or_else(no_range),
        })
    }
}

/// Root gives the user a range in the test's own namespace, over a file that must be there; a user has one or has not.
fn no_range() -> Option<String> {
    let own = [rustix::process::geteuid().to_string(), std::env::var("USER").unwrap_or_default()];
    let has = |file: &&str| {
        let text = std::fs::read_to_string(file).ok()?;
        let mine = |line: &str| own.iter().any(|name| line.split(':').next() == Some(name));
        (machine::is_root() || text.lines().any(mine)).then_some(())
    };
    let lacking = ["/etc/subuid", "/etc/subgid"].into_iter().find(|file| has(file).is_none());
    lacking.map(|file| format!("{file} has no range for this user"))
}

/// Steps down to a user that exists, as fusermount3 and newuidmap ask for its name. `$1` is the user, `$2` to `$4` are the test, the binary under
/// test and the third-party suites: bound to where every user can reach them, for they may lie in a home that is closed. /dev/fuse is
/// 0600 on some machines. The rest is the command.
const STEP_DOWN: &str = r#"
    mount -t tmpfs none /mnt
    mknod -m 666 /mnt/fuse c 10 229 && mount --bind /mnt/fuse /dev/fuse
    user=$1; touch /mnt/test /mnt/lamina-fs; mkdir /mnt/suites
    mount --bind "$2" /mnt/test; mount --bind "$3" /mnt/lamina-fs
    if [ -d "$4" ]; then mount --bind "$4" /mnt/suites; fi
    shift 4
    for file in subuid subgid; do
        if [ -e "/etc/$file" ]; then
            echo "$(id -un "$user"):100000:65536" >"/mnt/$file"
            mount --bind "/mnt/$file" "/etc/$file"
        fi
    done
    exec setpriv --reuid "$user" --regid "$user" --clear-groups --inh-caps=-all "$@""#;

/// The first ordinary user of the machine, else one that every system has.
fn plain_user() -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ids = users.lines().filter_map(|line| line.split(':').nth(2)?.parse::<u32>().ok());
    ids.filter(|id| (1000..60_000).contains(id)).min().unwrap_or(1).to_string()
}

/// Runs `body` as a plain user, once in each way. `name` is the test's own path in its binary: that test runs again, and comes here again.
pub fn in_each_way(name: &str, body: fn()) {
    if Way::current().is_some() {
        return body();
    }
    for way in Way::ALL {
        again(way, &[name, "--exact", "--test-threads=1"]);
    }
}

/// Runs this test binary again as a plain user in `way`, with these arguments; panics unless tests ran and none failed.
#[track_caller]
pub fn again(way: Way, arguments: &[&str]) {
    if let Some(reason) = way.missing() {
        println!("SKIPPED, a user with {}: {reason}", way.name());
        return;
    }
    let output = as_plain_user(way, arguments);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if said.contains("unshare: unshare failed") {
        println!("SKIPPED, a user with {}: no user namespaces here: {}", way.name(), said.trim());
        return;
    }
    assert!(output.status.success(), "as a plain user with {}:\n{said}", way.name());
    assert!(!said.contains(" 0 passed"), "no test ran again as a plain user with {}:\n{said}", way.name());
    println!("as a plain user with {}:\n{said}", way.name());
}

fn as_plain_user(way: Way, arguments: &[&str]) -> Output {
    let test = std::env::current_exe().expect("path of the test binary");
    let (binary, suites) = (lamina::binary(), lamina::suites_dir());
    let mut command = match machine::is_root() {
        true => {
            let mut command = Command::new("unshare");
            command.args(["-m", "sh", "-euc", STEP_DOWN, "sh", &plain_user()]);
            command.args([&test, binary, &suites]).args(way.enter()).arg("/mnt/test");
            command.env("LAMINA_FS", "/mnt/lamina-fs").env("LAMINA_SUITES", "/mnt/suites").current_dir("/");
            command
        }
        false => command_of(way, &test),
    };
    command.args(arguments).arg("--nocapture").env(WAY, way.name()).env("TMPDIR", "/tmp");
    command.output().unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()))
}

fn command_of(way: Way, test: &Path) -> Command {
    let mut words = way.enter().iter().map(Path::new).chain([test]);
    let mut command = Command::new(words.next().expect("at least the test"));
    command.args(words);
    command
}
