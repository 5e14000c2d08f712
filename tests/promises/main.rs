//! What SHADOW promises, one promise a file, kept on a real cluster with the real `kubectl drain`.
//!
//! Run them one at a time: `cargo test --release --test promises -- --test-threads=1`.

#[path = "../lab/mod.rs"]
mod lab;

mod drain_is_exact;
