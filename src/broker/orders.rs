//! What the operator asks of a broker, and what it gets. No I/O here; implementations do it.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::{BrokerError, QueueFacts};
use crate::api::{Epoch, MigrationUid};

/// An order to park is not kept longer than any migration lasts: after that nobody obeys it any more.
pub const PARK_LIVES: Duration = Duration::from_secs(600);

/// What the operator needs of a message broker, for one migration.
///
/// # Guarantees an implementation must give
/// * Every method is idempotent: after a lost answer or a restart it is simply called again with the same order.
/// * Every method ends: those with `within` by then, the others by a limit of the implementation's own.
/// * No queue that holds a message is deleted, but the reply queue and the control queues of helper pods, which
///   hold no user's messages.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Looks at a queue without changing anything. A missing one is [`BrokerError::QueueNotFound`].
    async fn preflight(&self, queue: &str) -> Result<QueueFacts, BrokerError>;

    /// Declares this attempt's parking queue and reply queue.
    async fn declare_parking(&self, queues: &MigrationQueues) -> Result<(), BrokerError>;

    /// Leaves a PARK for a pod that is about to be restored, so that it wakes up parked. It waits for nothing. A
    /// consumer with a [`super::control::ConsumerGate`] does not need it (it remembers that it is parked); one that
    /// knows only the plain two messages does. Never for a pod that is running.
    async fn leave_park(&self, order: &ParkOrder) -> Result<(), BrokerError>;

    /// Orders the consumer to park; returns when it is proven that it takes nothing from the primary queue any more
    /// and that what it had been given is applied and acknowledged.
    async fn park(&self, order: &ParkOrder, within: Duration) -> Result<Parked, BrokerError>;

    /// Orders the consumer to take messages again; returns when it says so or the broker shows it. The pod may have
    /// another name than the one that parked, and may not be connected yet. A consumer that no order can ever have
    /// reached counts as resumed if it consumes; if it does not, [`BrokerError::ConsumerWithoutControlQueue`].
    async fn resume(&self, order: &ResumeOrder, within: Duration) -> Result<Resumed, BrokerError>;

    /// Deletes this attempt's queues, and the control queues of its helper pods. A parking queue that holds a message
    /// ([`BrokerError::NotEmpty`]) or is still consumed ([`BrokerError::InUse`]) stays.
    async fn drop_parking(&self, queues: &MigrationQueues) -> Result<(), BrokerError>;
}

/// The queues of one attempt of one migration. Every order carries them, so every order carries the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationQueues {
    pub migration: MigrationUid,
    pub epoch: Epoch,
    /// The user's queue. Never declared, bound or deleted here.
    pub primary: String,
    /// Pods made for this migration (the shadow): their control queues go with it.
    pub helpers: Vec<String>,
}

impl MigrationQueues {
    pub fn new(migration: MigrationUid, epoch: Epoch, primary: impl Into<String>) -> Self {
        Self { migration, epoch, primary: primary.into(), helpers: Vec::new() }
    }

    /// Names a pod whose control queue is deleted with the migration's.
    #[must_use]
    pub fn with_helper(mut self, pod: impl Into<String>) -> Self {
        self.helpers.push(pod.into());
        self
    }

    /// A parked consumer sits on this queue: nothing is bound to it, so nothing comes.
    pub fn parking(&self) -> String {
        format!("ms2m.park.{}.{}", self.migration, self.epoch)
    }

    /// Consumers answer here.
    pub fn reply(&self) -> String {
        format!("ms2m.reply.{}.{}", self.migration, self.epoch)
    }
}

/// Stop taking messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkOrder {
    /// Name of the pod, as its /etc/hostname has it.
    pub pod: String,
    pub queues: MigrationQueues,
}

/// Take messages again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumeOrder {
    /// Name of the pod that carries on, as its /etc/hostname has it.
    pub pod: String,
    pub queues: MigrationQueues,
    /// The consumer is known to answer, because it did when it parked: then nothing but its answer counts. The broker
    /// cannot be asked for that: it may still believe that a dead operator is reading the answer.
    pub answers: bool,
}

/// How something is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The consumer answered.
    Acknowledged,
    /// The consumer does not know the extension, the broker shows it: gone from one queue, on the other. Order of
    /// what such a consumer hands back holds on classic queues only.
    ByBroker,
}

/// The consumer is parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// How many messages it has applied, if it said so.
    pub position: Option<u64>,
    /// Id of the last of them, if it said so.
    pub last_id: Option<String>,
    pub proof: Proof,
}

/// The consumer takes messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// How many messages it had applied when it went on, if it said so.
    pub position: Option<u64>,
    pub last_id: Option<String>,
    pub proof: Proof,
}

/// Address of a broker with its credentials: shown without them.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl(String);

impl BrokerUrl {
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// With the password: for the client only.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// `amqp://user:password@host:port/vhost` without user and password.
impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("amqp", &self.0));
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        write!(f, "{scheme}://{host}")
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_url_is_shown_without_its_credentials() {
        for url in ["amqp://me:s3cret@mq:5672/%2f", "amqps://me:s3c@ret@mq:5672/%2f?auth_mechanism=s3cret"] {
            let url = BrokerUrl::new(url);
            for shown in [url.to_string(), format!("{url:?}")] {
                assert!(shown.contains("://mq:5672/%2f"), "{shown}");
                assert!(!shown.contains("s3c") && !shown.contains("me:"), "{shown}");
            }
        }
    }

    #[test]
    fn queue_names_carry_the_migration_and_the_epoch() {
        let queues = MigrationQueues::new("u-1".into(), Epoch(3), "orders");
        assert_eq!(queues.parking(), "ms2m.park.u-1.3");
        assert_eq!(queues.reply(), "ms2m.reply.u-1.3");
    }
}
