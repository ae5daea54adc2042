//! pjdfstest 0.2.2: POSIX semantics, one case per behaviour and file type.

use std::collections::BTreeSet;
use std::error::Error;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::{env, fs};

use crate::filesystem::{Filesystem, Mounted, SHARED_DIR};
use crate::tool;

/// Two users that every Debian has, so that the machine under test gets no new ones.
const CONFIG: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}

[settings]
naptime = 0.01
allow_remount = true

[dummy_auth]
entries = [["nobody", "nogroup"], ["games", "games"]]
"#;

/// Stands before `mount` in PATH. The cases of EROFS remount what they run on: without `-i` that would run the mount
/// helper of a FUSE filesystem, which starts a second server. A closed file may still be on its way out: try again.
const MOUNT: &str = "#!/bin/sh
for attempt in 1 2 3 4 5; do /bin/mount -i \"$@\" && exit 0; sleep 0.1; done
exit 32
";

/// The names of the cases, by outcome.
#[derive(Debug, Default)]
pub struct Report {
    pub passed: BTreeSet<String>,
    pub failed: BTreeSet<String>,
    pub skipped: BTreeSet<String>,
}

impl Report {
    fn parse(output: &str) -> Result<Self, Box<dyn Error>> {
        let mut report = Report::default();
        for line in output.lines() {
            let (Some((name, outcome)), false) =
                (line.split_once(char::is_whitespace), line.starts_with(char::is_whitespace))
            else {
                continue;
            };
            let cases = match outcome.trim() {
                "ok" => &mut report.passed,
                "FAILED" => &mut report.failed,
                "skipped" => &mut report.skipped,
                _ => continue,
            };
            cases.insert(name.to_owned());
        }
        if !output.lines().any(|line| line.starts_with("Summary:")) {
            return Err(format!("pjdfstest ended without a summary:\n{output}").into());
        }
        Ok(report)
    }
}

/// Runs the cases of these names, or all when there are none, in a directory that both lower layers hold.
pub fn run(filesystem: &Filesystem, names: &[&String]) -> Result<Report, Box<dyn Error>> {
    let mounted = Mounted::new(filesystem)?;
    let config = mounted.base().join("pjdfstest.toml");
    fs::write(&config, CONFIG)?;
    let shadow = mounted.base().join("path");
    fs::create_dir(&shadow)?;
    fs::write(shadow.join("mount"), MOUNT)?;
    fs::set_permissions(shadow.join("mount"), PermissionsExt::from_mode(0o755))?;
    let path = env::join_paths([shadow].into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())))?;

    let mut command = Command::new(tool::installed("pjdfstest")?);
    command.env("PATH", path).env("NO_COLOR", "1").env("RUST_BACKTRACE", "0");
    command
        .arg("-c")
        .arg(config)
        .arg("-p")
        .arg(mounted.path(SHARED_DIR))
        .arg("-s")
        .arg(mounted.base().join("secondary"));
    if !names.is_empty() {
        command.arg("-e").arg("--").args(names);
    }
    let output = command.output()?;
    Report::parse(&format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}
