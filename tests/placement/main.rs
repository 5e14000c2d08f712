//! Where shadows go, kept on a real cluster of three nodes with the real kube-scheduler beside the extender.
//!
//! Run them one at a time: `cargo test --release --test placement -- --test-threads=1`, after `cluster up --nodes 3`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::format_collect)] // a test or an instrument that cannot go on says so

#[path = "../lab/mod.rs"]
mod lab;

#[path = "../promises/after.rs"]
#[allow(dead_code)] // it is the promises' too
mod after;
#[path = "../promises/trouble.rs"]
#[allow(dead_code)]
mod trouble;

mod agents_write_their_own;
mod elsewhere;
mod extender_killed;
mod foreign_processor;
mod full_nodes;
mod many_at_once;
mod marks_are_reserved;
mod preflight;
mod waits_in_the_scheduler;

mod nodes;
