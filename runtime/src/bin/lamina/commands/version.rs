//! `lamina version`.

use super::output::say;
use clap::Args;

/// Print the version of this program, of the specifications and of the kernel
#[derive(Args, Debug)]
pub struct Version {}

impl Version {
    pub fn run(self) -> anyhow::Result<u8> {
        let kernel = rustix::system::uname();
        let text = format!(
            "Version:       {}\nOCI runtime:   1.3.0\nOCI image:     1.1.0\nKernel:        {}\nOS/Arch:       {}/{}\n",
            env!("CARGO_PKG_VERSION"),
            kernel.release().to_string_lossy(),
            std::env::consts::OS,
            lamina_snapshotter::image::Platform::host().architecture,
        );
        say(&text)?;
        Ok(0)
    }
}
