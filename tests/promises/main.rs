//! What SHADOW promises, one promise a file, kept on a real cluster with the real `kubectl drain`.
//!
//! Run them one at a time: `cargo test --release --test promises -- --test-threads=1`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::format_collect)] // a test or an instrument that cannot go on says so

#[path = "../lab/mod.rs"]
mod lab;
#[path = "../sample/mod.rs"]
mod sample;

mod after;
mod after_archive_damaged;
mod after_image_removed;
mod after_not_made;
mod after_restores_fail;
mod after_target_lost;
mod after_without_queue;
mod answers;
mod carried;
mod drain_deployment;
mod drain_dry_run;
mod drain_is_exact;
mod drain_own_parts;
mod drain_sequential;
mod drain_several;
mod drain_unannotated;
mod drain_without_queue;
mod looks;
mod orphaned_archive;
mod prepared;
mod refusals;
mod trouble;
mod trouble_archive_damaged;
mod trouble_broker;
mod trouble_dump_fails;
mod trouble_more_than_its_spec;
mod trouble_never_parks;
mod trouble_no_node;
mod trouble_operator_killed;
mod trouble_target_dies;
mod whole_pod;
mod world_admission;
mod world_host_port;
mod world_image;
mod world_policies;
mod world_revision;
