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
# Cases that compare time stamps sleep so long between two changes. The clock of a filesystem ticks with the kernel's timer: every 10 ms at CONFIG_HZ=100.
naptime = 0.05
allow_remount = ALLOW_REMOUNT

[dummy_auth]
entries = [["nobody", "nogroup"], ["games", "games"]]
"#;

/// Stands before `mount` in PATH. The cases of EROFS remount what they run on: without `-i` that would run the mount
/// helper of a FUSE filesystem, which starts a second server.
const MOUNT: &str = "#!/bin/sh
exec /bin/mount -i \"$@\"
";

/// What the names of the cases have in common that remount their filesystem read-only.
const REMOUNTING: &str = "erofs";

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

    /// With the cases of `other` that ran there.
    fn joined(mut self, other: Report) -> Report {
        self.skipped.retain(|name| !other.passed.contains(name) && !other.failed.contains(name));
        self.passed.extend(other.passed);
        self.failed.extend(other.failed);
        self
    }
}

/// Runs every case in a directory that both lower layers hold, each once.
///
/// The cases that remount have a process of their own: others leave files open for writing until their process ends, and with these open no
/// filesystem can be remounted read-only.
pub fn run(filesystem: &Filesystem) -> Result<Report, Box<dyn Error>> {
    let remounting = run_matching(filesystem, Some(REMOUNTING))?;
    Ok(run_matching(filesystem, None)?.joined(remounting))
}

/// Runs the cases with this in their name; without it all but those that remount, which are skipped.
fn run_matching(filesystem: &Filesystem, part: Option<&str>) -> Result<Report, Box<dyn Error>> {
    let mounted = Mounted::new(filesystem)?;
    let config = mounted.base().join("pjdfstest.toml");
    fs::write(&config, CONFIG.replace("ALLOW_REMOUNT", &part.is_some().to_string()))?;
    let shadow = mounted.base().join("path");
    fs::create_dir(&shadow)?;
    fs::write(shadow.join("mount"), MOUNT)?;
    fs::set_permissions(shadow.join("mount"), PermissionsExt::from_mode(0o755))?;
    let path = env::join_paths([shadow].into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())))?;

    let mut command = Command::new(tool::installed("pjdfstest")?);
    command.env("PATH", path).env("NO_COLOR", "1").env("RUST_BACKTRACE", "0");
    command.arg("-c").arg(config).arg("-p").arg(mounted.path(SHARED_DIR));
    command.arg("-s").arg(mounted.base().join("secondary")).args(part);
    let output = command.output()?;
    Report::parse(&format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}
