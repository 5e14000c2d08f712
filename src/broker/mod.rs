//! Broker side: park and resume a consumer, with proof; the queues of one migration; the control messages.
//!
//! [`Broker`] is what the operator needs of a message broker, [`AmqpBroker`] does it with RabbitMQ (AMQP 0-9-1).
//! [`control`] and [`ConsumerGate`] are pure and made to be used, or copied, by consumers: `examples/consumer` does.

mod amqp;
pub mod control;
mod error;
mod gate;
mod orders;
mod queue;

pub use amqp::{AmqpBroker, Limits};
pub use error::BrokerError;
pub use gate::{ConsumerGate, Decision, answer};
pub use orders::{
    Broker, BrokerUrl, MigrationQueues, PARK_LIVES, ParkOrder, Parked, Proof, ResumeOrder, Resumed,
};
pub use queue::{QueueFacts, QueueKind};
