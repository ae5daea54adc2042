//! Lamina for a user without privileges, in the ways there are: with fusermount3, and with mount(2) in a user namespace of one's own, with one id
//! and with many.
//!
//! - `basics`: one test for each thing a container does all day.
//! - `oracle`: the random sequences, beside the model.
//!
//! Started by root, each test runs itself again as a plain user; started by a plain user, as that user. The tests of `mounted` and `suites` that
//! apply to such a user run so too, see `rootless` there.

mod basics;
mod oracle;

use support::rootless::in_each_way as rootless;
