//! Real programs from Debian's packages, and servers as their languages make them: each is written to, drained to the
//! other node and back by the real `kubectl drain`, and is the same process with the same state afterwards; once as root
//! and once as charts run it.
//!
//! Run them one at a time: `cargo test --release --test programs -- --test-threads=1`, after `make programs-image`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::format_collect)] // a test or an instrument that cannot go on says so

#[path = "../lab/mod.rs"]
mod lab;

mod claims;
mod counters;
mod gunicorn;
mod image;
mod ledger;
mod postgres;
mod rabbitmq;
mod redis;
mod tour;
mod variants;
