//! A real RabbitMQ for tests: its address, a hold on it, queues of a test's own, the example's consumer and producer in
//! this process, and wires between them and the broker that can be cut.
//!
//! [`tool`] finds the broker and disturbs it; [`Stage`] is one test's corner of it; [`Scene`] is a stage with a consumer
//! and the broker module on it; [`Journey`] is a whole migration as the operator drives it.

#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc
)]

#[path = "../../../examples/producer/ledger.rs"]
pub mod ledger;
#[path = "../../../examples/producer/publisher.rs"]
pub mod publisher;
#[path = "../../../examples/consumer/session.rs"]
pub mod session;
#[path = "../../../examples/consumer/state.rs"]
pub mod state;

mod cutter;
mod frames;
mod journey;
mod plain;
mod post;
mod scene;
mod source;
mod stage;
mod subject;
pub mod tool;
mod wait;
mod wire;

pub use cutter::{Cut, Cutter, When};
pub use journey::{Ending, Journey};
pub use plain::PlainConsumer;
pub use post::Post;
pub use scene::Scene;
pub use source::{Source, agree};
pub use stage::Stage;
pub use subject::Subject;
pub use wait::{PATIENCE, WITHIN, until};
pub use wire::Wire;
