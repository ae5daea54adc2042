//! `lamina-snapshotter doctor`: what this host supports.

use lamina_snapshotter::host::{self, Finding};
use std::path::Path;
use std::process::ExitCode;

pub fn run(root: &Path) -> anyhow::Result<ExitCode> {
    let findings = host::examine(root);
    for (what, finding) in &findings {
        println!("{}  {what}: {}", finding.mark(), finding.text());
    }
    let usable = !findings.iter().any(|(_, finding)| matches!(finding, Finding::Bad(_)));
    println!("{}", if usable { "Lamina can run here." } else { "Lamina cannot run here before that is mended." });
    Ok(if usable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
