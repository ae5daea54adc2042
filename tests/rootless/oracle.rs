//! The random sequences on a mount of a plain user, beside the model of one: no chown, no `trusted.` marks, modes that forbid.

use support::oracle::{Cases, Formats, Model, PathTarget, follow};
use support::{Entry, LaminaMount, Layers};

use crate::rootless;

#[test]
fn random_sequences_show_what_the_model_shows() {
    rootless("oracle::random_sequences_show_what_the_model_shows", || {
        Cases::new(16, 40, 1500).check(|stack, ops| {
            let literals = stack.literals(Formats::All { privileged: false });
            let literals: Vec<&[Entry]> = literals.iter().map(Vec::as_slice).collect();
            let layers = Layers::new(&literals);
            let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            let mut target = PathTarget::new(LaminaMount::new(&layers));
            let followed = follow(&mut target, &mut Model::new(stack, false, owner), ops);
            drop(target);
            layers.assert_lowers_untouched();
            followed.map(drop)
        });
    });
}
