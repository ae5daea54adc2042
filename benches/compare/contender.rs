//! Who is compared, and how each is mounted.
//!
//! Owns names, programs and option strings. Must not know what is measured. Invariant: two contenders differ in the filesystem
//! and its options only, never in the layers or in where the upper layer lies.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cli::RunArguments;
use crate::layers::Stack;
use crate::mounted::Mounted;

/// The reference of all ratios.
pub const REFERENCE: &str = "overlayfs";

/// The reference where the kernel's fsync at copy-up would hide everything else.
pub const REFERENCE_VOLATILE: &str = "overlayfs-volatile";

/// How a filesystem is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The kernel's, with these further options set.
    Overlay { volatile: bool },
    /// Anything with the command line of fuse-overlayfs.
    FuseOverlayfs,
    /// unionfs-fuse has its own.
    Unionfs,
    /// Ours; an index is built ahead and named.
    Lamina { options: &'static str, index: bool },
}

/// Where a program comes from; each has a flag that says where it lies.
#[derive(Debug, Clone, Copy)]
enum Source {
    Kernel,
    First,
    Second,
    Unionfs,
    Lamina,
}

// The default mode carries no `io=`, so that a program from before the option can be measured too.
const KNOWN: [(&str, Kind, Source); 11] = [
    (REFERENCE, Kind::Overlay { volatile: false }, Source::Kernel),
    (REFERENCE_VOLATILE, Kind::Overlay { volatile: true }, Source::Kernel),
    ("fuse-overlayfs-1", Kind::FuseOverlayfs, Source::First),
    ("fuse-overlayfs-2", Kind::FuseOverlayfs, Source::Second),
    ("unionfs-fuse", Kind::Unionfs, Source::Unionfs),
    ("lamina-cached", Kind::Lamina { options: "", index: false }, Source::Lamina),
    ("lamina-cached-index", Kind::Lamina { options: "", index: true }, Source::Lamina),
    // What the other volatile one is compared with, for the rows whose target is that.
    ("lamina-volatile", Kind::Lamina { options: ",volatile", index: false }, Source::Lamina),
    ("lamina-volatile-index", Kind::Lamina { options: ",volatile", index: true }, Source::Lamina),
    ("lamina-passthrough", Kind::Lamina { options: ",io=passthrough", index: false }, Source::Lamina),
    ("lamina-passthrough-index", Kind::Lamina { options: ",io=passthrough", index: true }, Source::Lamina),
];

/// One filesystem with one set of options.
#[derive(Debug, Clone)]
pub struct Contender {
    /// As `--contender` and the reports call it.
    pub name: &'static str,
    /// What it is, for the reports.
    pub version: String,
    kind: Kind,
    program: PathBuf,
}

/// The directories that belong to one mount alone.
#[derive(Debug)]
pub struct Place {
    /// Upper layer, work directory and mountpoint.
    pub upper: PathBuf,
    pub work: PathBuf,
    pub mount: PathBuf,
    /// The index of the lowers, for who uses one.
    pub index: PathBuf,
}

/// Everybody that `--contender` lets in.
pub fn all(arguments: &RunArguments) -> Result<Vec<Contender>> {
    let lamina = match &arguments.lamina {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("lamina-fs"),
    };
    let program = |source: Source| match source {
        Source::Kernel => PathBuf::new(),
        Source::Lamina => lamina.clone(),
        Source::First => arguments.fuse_overlayfs_1.clone(),
        Source::Second => arguments.fuse_overlayfs_2.clone(),
        Source::Unionfs => arguments.unionfs.clone(),
    };
    let exact = |wanted: &str| KNOWN.iter().any(|(name, ..)| *name == wanted);
    let matches = |name: &str, wanted: &str| name == wanted || !exact(wanted) && name.starts_with(wanted);
    let wanted =
        |name: &str| arguments.contender.is_empty() || arguments.contender.iter().any(|wanted| matches(name, wanted));
    let chosen = KNOWN.into_iter().filter(|(name, ..)| wanted(name));
    let contenders: Vec<Contender> = chosen
        .map(|(name, kind, source)| {
            let program = program(source);
            // Relative programs are ours to find, not the shell's: the mount command runs elsewhere.
            let program = program.canonicalize().unwrap_or_else(|_| program.clone());
            Contender { name, version: version(kind, &program), kind, program }
        })
        .collect();
    if contenders.is_empty() {
        bail!("no contender is called {:?}; see --list", arguments.contender);
    }
    Ok(contenders)
}

/// Names of all, for `--list`.
pub fn names() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().map(|(name, ..)| *name)
}

impl Contender {
    /// Why it cannot take part on this machine.
    pub fn missing(&self) -> Option<String> {
        match self.kind {
            Kind::Overlay { .. } => None,
            _ if self.program.is_file() => None,
            Kind::Lamina { .. } => Some(format!("{}: not there; run `make build`", self.program.display())),
            Kind::Unionfs => Some(format!("{}: not installed; apt install unionfs-fuse", self.program.display())),
            Kind::FuseOverlayfs => Some(format!(
                "{}: not installed; apt install fuse-overlayfs for 1.x, make rivals-deps for 2.0",
                self.program.display()
            )),
        }
    }

    /// Mounts the stack with the upper layer of `place`.
    pub fn mount(&self, stack: &Stack, place: &Place) -> Result<Mounted> {
        let lowers = joined(&stack.lowers, ":", "");
        let dirs = || format!("upperdir={},workdir={}", place.upper.display(), place.work.display());
        let mut command = Command::new(&self.program);
        match self.kind {
            Kind::Overlay { volatile } => {
                return Mounted::overlay(&stack.lowers, &place.upper, &place.work, volatile, &place.mount);
            }
            Kind::FuseOverlayfs => command.args(["-f", "-o"]).arg(format!("lowerdir={lowers},{}", dirs())),
            Kind::Unionfs => {
                let branches = format!("{}=RW:{}", place.upper.display(), joined(&stack.lowers, ":", "=RO"));
                command.args(["-f", "-o", "cow,allow_other,default_permissions,suid,dev", &branches])
            }
            Kind::Lamina { options, index } => {
                let mut words = format!("lowerdir={lowers},{}{options}", dirs());
                if index {
                    self.build_index(&lowers, &place.index)?;
                    words.push_str(&format!(",index={}", place.index.display()));
                }
                command.args(["-f", "-o"]).arg(words)
            }
        };
        command.arg(&place.mount);
        Mounted::fuse(command, &place.mount)
    }

    /// Once for each stack of layers: it is not part of any measurement.
    fn build_index(&self, lowers: &str, index: &Path) -> Result<()> {
        if index.exists() {
            return Ok(());
        }
        let mut command = Command::new(&self.program);
        command.args(["index", "build", "-o"]).arg(format!("lowerdir={lowers}")).arg(index);
        let output = command.output().with_context(|| self.program.display().to_string())?;
        match output.status.success() {
            true => Ok(()),
            false => bail!("index build: {}", String::from_utf8_lossy(&output.stderr).trim()),
        }
    }
}

fn joined(paths: &[PathBuf], separator: &str, after: &str) -> String {
    let words: Vec<String> = paths.iter().map(|path| format!("{}{after}", path.display())).collect();
    words.join(separator)
}

/// What a program calls itself.
fn version(kind: Kind, program: &Path) -> String {
    if matches!(kind, Kind::Overlay { .. }) {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        return format!("Linux {}", release.trim());
    }
    let words = [OsString::from("--version")];
    let Ok(output) = Command::new(program).args(words).output() else { return String::new() };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    // The FUSE library speaks first, of itself.
    let own = |line: &&str| !line.contains("fusermount") && !line.starts_with("FUSE");
    text.lines().find(own).unwrap_or_default().trim().to_owned()
}
