//! The suites as a user without privileges, with fusermount3 and in user namespaces. The measure is what the same user gets from the kernel.
//! Invariant: the measure is taken in the same run, with the same ids.

use support::rootless::{Way, in_each_way};

use crate::filesystem::{Filesystem, Mounted};
use crate::fsx::Subject;
use crate::{fails_nowhere_else, seeds_pass};

/// The kernel's overlayfs where this user may mount it, else a plain directory, which a user of fusermount3 has in any case.
fn reference() -> Filesystem {
    let overlayfs = Filesystem::Overlayfs { options: "userxattr" };
    if Way::current() == Some(Way::Fusermount3) {
        return Filesystem::Plain;
    }
    match Mounted::new(&overlayfs) {
        Ok(_) => overlayfs,
        Err(refused) => {
            println!("a plain directory is the measure: {refused}");
            Filesystem::Plain
        }
    }
}

#[test]
fn pjdfstest_of_a_plain_user_fails_nowhere_that_the_kernel_passes() {
    in_each_way("rootless::pjdfstest_of_a_plain_user_fails_nowhere_that_the_kernel_passes", || {
        let lamina = Filesystem::lamina("").expect("the binary");
        fails_nowhere_else(&reference(), &lamina).expect("both ran");
    });
}

/// A seed of its own for each way: the data path is the same, and minutes are dear.
fn seed() -> [u64; 1] {
    let way = Way::current().expect("a second run");
    Way::ALL.into_iter().zip(11..).find(|(known, _)| *known == way).map(|(_, seed)| [seed]).expect("a known way")
}

#[test]
fn fsx_of_a_plain_user_passes_on_new_file() {
    in_each_way("rootless::fsx_of_a_plain_user_passes_on_new_file", || {
        seeds_pass(&seed(), "", Subject::New).expect("it ran");
    });
}

#[test]
fn fsx_of_a_plain_user_passes_on_lower_file() {
    in_each_way("rootless::fsx_of_a_plain_user_passes_on_lower_file", || {
        seeds_pass(&seed(), "", Subject::Lower).expect("it ran");
    });
}
