//! The broker module on a real RabbitMQ: `tests/cluster/cluster in cp -- cargo test --release --test broker`.
//!
//! One file a promise, and one at a time (`-- cuts::`): some load the broker, `disturbed` kills it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on says so

#[path = "../sample/mod.rs"]
mod sample;
mod support;

mod cuts;
mod disturbed;
mod model_is_right;
mod park_and_resume;
mod prefetch;
mod refusals;
mod sharing;
