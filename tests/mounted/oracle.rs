//! The random sequences on real mounts: Lamina and the kernel's overlayfs, each on layers of its own, each beside the model. Both must do
//! what the model says, and end in the same tree, before and after a remount.
//!
//! What is meant to differ from the kernel's overlayfs, and is therefore not compared:
//! - Link counts of directories: overlayfs says 1 for a merged one, Lamina may know better. `View::nlinks` leaves directories out.
//! - Link counts of a lower file with a name that a layer above hides: overlayfs counts the names in the layer. The model says `None`.
//! - `d_ino` of overlayfs: in a directory that it takes for all its own it lists a linked lower file by the number of the copy, and stat says
//!   the number of the lower file. Lamina must list what stat says; for overlayfs it is not checked.
//! - Times that no operation has set: two runs are not at the same moment. The model says `None`, and so each tree is
//!   compared with the model's and not field by field with the other's.
//! - Whiteout formats: overlayfs reads only its own, so its stack is spelled in these (`Formats::Kernel`).
//! - The words of a refusal with two reasons (a lower directory over a full one): EXDEV or ENOTEMPTY, see `may_replace` in the model.

use support::lamina::Lamina;
use support::oracle::{Cases, Formats, Model, Op, PathTarget, Stack, follow};
use support::{Entry, KernelOverlay, Layers, Tree, View, machine, needs};

fn layers(stack: &Stack, formats: Formats) -> Layers {
    let literals = stack.literals(formats);
    let literals: Vec<&[Entry]> = literals.iter().map(Vec::as_slice).collect();
    Layers::new(&literals)
}

fn on_overlay(stack: &Stack, ops: &[Op]) -> Result<Tree, String> {
    let layers = layers(stack, Formats::Kernel);
    let mut target = PathTarget::new(KernelOverlay::new(&layers));
    let tree = follow(&mut target, &mut Model::new(stack, true, (0, 0)), ops);
    tree.map_err(|why| format!("the kernel's overlayfs and the model: {why}"))
}

fn on_lamina(stack: &Stack, ops: &[Op], options: &str) -> Result<Tree, String> {
    let layers = layers(stack, Formats::All { privileged: true });
    let mut target = PathTarget::new(Lamina::on(&layers).option(options).mount());
    let tree = follow(&mut target, &mut Model::new(stack, true, (0, 0)), ops);
    drop(target);
    layers.assert_lowers_untouched();
    tree.map_err(|why| format!("Lamina and the model: {why}"))
}

/// The model would prove nothing if it were wrong: it is held against the kernel's overlayfs first.
#[test]
fn model_shows_what_overlayfs_shows() {
    needs!(KernelOverlay::missing());
    Cases::new(24, 40, 300).check(|stack, ops| on_overlay(stack, ops).map(drop));
}

#[test]
fn lamina_shows_what_overlayfs_shows() {
    needs!(machine::mounts(), KernelOverlay::missing());
    Cases::new(24, 40, 300).check(|stack, ops| {
        let (ours, kernels) = (on_lamina(stack, ops, "io=cached")?, on_overlay(stack, ops)?);
        let view = View { nlinks: false, ..View::TIMELESS };
        let lines = ours.differences(&kernels, view);
        if lines.is_empty() {
            Ok(())
        } else {
            Err(format!("left is Lamina, right overlayfs:\n  {}", lines.join("\n  ")))
        }
    });
}

/// The kernel collects writes, and with them keeps size and times itself until it sends them.
#[test]
fn lamina_with_writeback_shows_what_the_model_shows() {
    needs!(machine::mounts());
    Cases::new(24, 40, 300).check(|stack, ops| on_lamina(stack, ops, "writeback=1").map(drop));
}

/// Owner and mode live in an attribute, which every copy and every change must carry along.
#[test]
fn lamina_with_permissions_in_an_xattr_shows_what_the_model_shows() {
    needs!(machine::mounts());
    Cases::new(24, 40, 300).check(|stack, ops| on_lamina(stack, ops, "xattr_permissions=2").map(drop));
}

#[test]
fn lamina_passing_through_shows_what_the_model_shows() {
    needs!(machine::passthrough());
    Cases::new(24, 40, 300).check(|stack, ops| on_lamina(stack, ops, "io=passthrough").map(drop));
}
