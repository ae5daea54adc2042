//! Verbs that take several containers: each gets its turn, and what fails is told without keeping the others from theirs.
//!
//! Invariant: the names that worked are printed, as they were given; the exit code says whether all did.

use super::Place;
use lamina_runtime::container::Container;
use lamina_runtime::container::error::EXIT_OWN_ERROR;

/// Does it to each; answers the exit code.
pub fn each(
    place: &Place,
    names: &[String],
    mut act: impl FnMut(&Container) -> anyhow::Result<()>,
) -> anyhow::Result<u8> {
    let containers = place.containers()?;
    let mut code = 0;
    for name in names {
        let done = containers.find(name).map_err(Into::into).and_then(|container| act(&container));
        match done {
            Ok(()) => super::print(&format!("{name}\n"))?,
            Err(error) => {
                eprintln!("lamina: {error:#}");
                code = EXIT_OWN_ERROR;
            }
        }
    }
    Ok(code)
}
