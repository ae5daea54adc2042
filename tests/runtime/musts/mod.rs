//! The specification's MUSTs, one function a requirement and named after it. Each takes the runtime, so that `compare-runtimes` can ask others too.

#![allow(dead_code, reason = "the tests use the functions, compare-runtimes the list")]

mod config;
mod hooks;
mod lifecycle;
mod linux;

use crate::bundle::Runtime;
use config::*;
use hooks::*;
use lifecycle::*;
use linux::*;

/// A requirement and its proof.
pub type Must = (&'static str, fn(&Runtime));

macro_rules! musts {
    ($($name:ident)*) => {
        /// All of them.
        pub const ALL: &[Must] = &[$((stringify!($name), $name)),*];

        #[cfg(test)]
        mod ours {
            $(#[test]
            fn $name() {
                support::needs!(support::machine::root(), support::machine::program("busybox"));
                super::$name(&crate::bundle::lamina_oci());
            })*
        }
    };
}

musts! {
    create_must_generate_an_error_for_an_id_in_use
    create_must_not_run_the_process
    create_must_keep_config_as_it_was
    create_must_apply_everything_but_the_process
    an_error_must_leave_no_container_behind
    state_must_generate_an_error_for_an_unknown_id
    state_must_have_its_properties
    start_must_run_the_process
    start_must_generate_an_error_unless_created
    kill_must_generate_an_error_unless_created_or_running
    kill_must_send_the_signal
    delete_must_generate_an_error_unless_stopped
    delete_must_remove_what_create_made
    a_deleted_id_may_be_used_again
    an_unknown_major_version_must_be_an_error
    unknown_properties_must_be_ignored
    unsupported_properties_must_be_an_error
    annotations_must_not_have_an_empty_key
    root_path_must_exist
    a_readonly_root_must_be_read_only
    mounts_must_be_made_in_their_order
    mount_options_must_be_applied
    recursive_mount_options_must_reach_all_mounts_below
    tmpfs_must_be_filled_with_tmpcopyup
    files_may_be_bound
    cwd_must_be_absolute
    cwd_and_env_must_be_those_of_the_process
    args_must_not_be_empty
    user_groups_and_umask_must_be_set
    rlimits_must_be_set
    rlimits_must_not_be_named_twice
    capabilities_must_be_limited_to_their_sets
    no_new_privileges_must_be_set
    oom_score_adj_must_be_set
    hostname_and_domainname_must_be_set
    namespaces_must_be_new_without_a_path
    namespaces_must_be_joined_with_a_path
    namespaces_must_be_the_runtimes_if_not_named
    a_namespace_path_of_another_type_must_be_an_error
    namespaces_must_not_be_named_twice
    uid_mappings_must_be_applied
    time_offsets_must_be_applied
    default_devices_must_be_there
    devices_must_be_made
    dev_links_must_be_there
    cgroups_path_must_be_the_place
    limits_must_be_set
    sysctl_must_be_set
    masked_paths_must_not_be_read
    readonly_paths_must_not_be_written
    seccomp_must_be_applied
    rootfs_propagation_must_be_applied
    personality_must_be_set
    hooks_must_run_in_their_order
    hooks_must_read_the_state
    a_failing_create_hook_must_stop_the_container
    a_failing_poststop_hook_must_only_be_told
    create_container_hooks_must_run_in_the_containers_namespaces
    start_container_hooks_must_run_inside
}
