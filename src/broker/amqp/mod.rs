//! RabbitMQ behind the [`Broker`] trait (AMQP 0-9-1). Does network I/O, every call with a limit.
//!
//! One [`AmqpBroker`], and so one connection, per migration. No automatic recovery: it would declare again what was
//! deleted meanwhile. A broken connection is an error of that call; the next call opens a new one.

mod handover;
mod link;
mod properties;
mod queues;

use std::time::Duration;

use async_trait::async_trait;

use super::{
    Broker, BrokerError, BrokerUrl, MigrationQueues, ParkOrder, Parked, QueueFacts, ResumeOrder, Resumed,
};
pub use link::Limits;
use link::Link;

/// A RabbitMQ broker as one migration sees it.
#[derive(Debug)]
pub struct AmqpBroker {
    link: Link,
}

impl AmqpBroker {
    /// Connects nowhere yet. `name` is shown by the broker's tools, for instance `shadow <migration uid>`.
    pub fn new(url: BrokerUrl, name: impl Into<String>) -> Self {
        Self::with_limits(url, name, Limits::default())
    }

    pub fn with_limits(url: BrokerUrl, name: impl Into<String>, limits: Limits) -> Self {
        Self { link: Link::new(url, name.into(), limits) }
    }

    /// Closes the connection; the next call would open a new one.
    pub async fn close(&self) {
        self.link.close().await;
    }
}

#[async_trait]
impl Broker for AmqpBroker {
    async fn preflight(&self, queue: &str) -> Result<QueueFacts, BrokerError> {
        properties::facts(&self.link, queue).await
    }

    async fn declare_parking(&self, queues: &MigrationQueues) -> Result<(), BrokerError> {
        queues::declare(&self.link.session().await?, queues).await
    }

    async fn leave_park(&self, order: &ParkOrder) -> Result<(), BrokerError> {
        handover::leave_park(&self.link, order).await
    }

    async fn park(&self, order: &ParkOrder, within: Duration) -> Result<Parked, BrokerError> {
        handover::park(&self.link, order, within).await
    }

    async fn resume(&self, order: &ResumeOrder, within: Duration) -> Result<Resumed, BrokerError> {
        handover::resume(&self.link, order, within).await
    }

    async fn drop_parking(&self, queues: &MigrationQueues) -> Result<(), BrokerError> {
        queues::drop_all(&self.link, queues).await
    }
}
