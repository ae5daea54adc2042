//! The other tests of this binary as a user without privileges, in each of the ways. What needs more than the user has says so, and skips.

use support::rootless::{Way, again};

/// What is promised to every user. The rest is about options and limits that are root's, or about the machine.
const APPLYING: [&str; 8] =
    ["handles::", "copy_up::", "whiteouts::", "identity::", "hardlinks::", "files::", "names::", "concurrency::"];

fn what_root_gets(way: Way) {
    let mut arguments = APPLYING.to_vec();
    // A program that one test starts has, until its execve(2), what the other has open on its mount, which is busy as long.
    arguments.push("--test-threads=1");
    again(way, &arguments);
}

#[test]
fn user_with_fusermount3_gets_what_root_gets() {
    what_root_gets(Way::Fusermount3);
}

#[test]
fn user_in_a_namespace_of_one_id_gets_what_root_gets() {
    what_root_gets(Way::OneId);
}

#[test]
fn user_in_a_namespace_of_many_ids_gets_what_root_gets() {
    what_root_gets(Way::ManyIds);
}
