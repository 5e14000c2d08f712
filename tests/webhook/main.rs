//! The webhook as the API server sees it, without a cluster: reviews in, answers out. One file a promise.

#![allow(clippy::unwrap_used, clippy::panic)] // a test

mod world;

mod answers;
mod bodies;
mod pods;
mod rules;
