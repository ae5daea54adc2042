//! `lamina create`, and what it shares with `run`.

use super::Place;
use super::flags::{Flags, Pull};
use anyhow::{Context as _, bail};
use clap::Args;
use lamina_runtime::container::ids::Ids;
use lamina_runtime::container::{self, Container, filesystem};
use lamina_runtime::oci::{log, seal};
use std::fs::{self, OpenOptions};
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

/// Make a container that `start` will run
#[derive(Args, Debug)]
pub struct Create {
    #[command(flatten)]
    flags: Flags,
}

impl Create {
    pub fn run(self, place: &Place) -> anyhow::Result<u8> {
        let container = make(place, &self.flags)?;
        super::print(&format!("{}\n", container.record.id)).map(|()| 0)
    }
}

/// Goes on in a program that no container can change; the filesystem's program is found before, as the sealed one lies nowhere.
pub fn sealed() -> anyhow::Result<()> {
    let server = filesystem::program()?;
    Ok(seal::ensure_with(&[("LAMINA_FS", server.as_os_str())])?)
}

/// Gets the image if that is wanted, and makes the container.
pub fn make(place: &Place, flags: &Flags) -> anyhow::Result<Container> {
    let (root, plan, wish) = (place.root()?, flags.plan(), flags.wish()?);
    let mut id_file = None;
    if let Some(path) = &flags.cidfile {
        let opened = OpenOptions::new().write(true).create_new(true).open(path);
        id_file = Some(
            opened.with_context(|| format!("cannot make --cidfile {}: remove it, or name another", path.display()))?,
        );
    }
    let made = get(place, flags).and_then(|()| Ok(container::make::make(&root, &plan, &wish)?));
    match (&made, id_file, &flags.cidfile) {
        (Ok(container), Some(mut file), Some(path)) => {
            file.write_all(container.record.id.as_str().as_bytes())
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        (Err(_), Some(_), Some(path)) => {
            fs::remove_file(path).with_context(|| format!("cannot delete {}", path.display()))?
        }
        _ => {}
    }
    if made.is_ok() && std::io::stderr().is_terminal() {
        tell_of_ids(&root);
    }
    made
}

/// Once, and to a person only: a script has nobody who would want to know.
fn tell_of_ids(root: &Path) {
    match Ids::choose().first_notice(&root.join("containers")) {
        Ok(notice) => notice.into_iter().for_each(log::warn),
        // The container is made all the same.
        Err(error) => log::debug(&format!("who has one id is not told so: {error}")),
    }
}

/// By a process of its own: a pull has threads, and who starts a container must have none.
fn get(place: &Place, flags: &Flags) -> anyhow::Result<()> {
    let root = place.root()?;
    match flags.pull {
        Pull::Never => return Ok(()),
        Pull::Missing if container::make::has_image(&root, &flags.image)? => return Ok(()),
        Pull::Missing => eprintln!("Unable to find image '{}' locally", flags.image),
        Pull::Always => {}
    }
    let mut command = Command::new("/proc/self/exe");
    command
        .arg("--store")
        .arg(&root)
        .args(["pull", "--quiet", &flags.image])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let status = command.status().context("cannot start `lamina pull`")?;
    if !status.success() {
        bail!(
            "image {} is not there and cannot be pulled: load one (lamina load -i FILE), or name its registry",
            flags.image
        );
    }
    Ok(())
}
