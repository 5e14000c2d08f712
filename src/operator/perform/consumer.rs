//! Effects on the consumer, through the broker.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{EffectError, Performer};
use crate::api::{MessageQueue, Reason};
use crate::broker::{Broker, BrokerError, BrokerUrl, MigrationQueues, ParkOrder, ResumeOrder};
use crate::operator::context::{Brokers, Context};
use crate::operator::drive::subject::{Journal, Subject};
use crate::operator::shadow_pod::shadow_name;
use crate::protocol::{Failure, Outcome};

/// Keys of a Secret under which a broker's URL may stand.
const SECRET_KEYS: [&str; 2] = ["url", "connection_string"];
/// Before it is taken on: then a broker that does not answer is left to the attempt.
const LOOK_LIMIT: Duration = Duration::from_secs(4);
/// Shorter than the step's limit, so that the broker's own explanation is what people read.
const PARK_LIMIT: Duration = Duration::from_secs(9);
/// The replacement may still be connecting; tried again until it answers.
const RESUME_LIMIT: Duration = Duration::from_secs(10);

/// The migration's own connection; made when first needed, made anew after an error.
pub(super) struct BrokerLink {
    client: kube::Client,
    brokers: Brokers,
    connected: Mutex<Option<Arc<dyn Broker>>>,
    /// Since when nothing that it must hear of has reached it.
    unheard_since: parking_lot::Mutex<Option<Instant>>,
}

impl BrokerLink {
    pub(super) fn new(client: kube::Client, brokers: Brokers) -> Self {
        Self { client, brokers, connected: Mutex::new(None), unheard_since: parking_lot::Mutex::new(None) }
    }

    /// What it must hear of in the end was told, or not.
    pub(super) fn heard(&self, told: bool) {
        let mut since = self.unheard_since.lock();
        *since = if told { None } else { since.or_else(|| Some(Instant::now())) };
    }

    pub(super) fn unheard_for(&self) -> Duration {
        self.unheard_since.lock().map_or(Duration::ZERO, |since| since.elapsed())
    }

    async fn get(&self, subject: &Subject) -> Result<(Arc<dyn Broker>, MessageQueue), EffectError> {
        let queue = subject
            .queue
            .clone()
            .ok_or_else(|| EffectError::failed(Reason::QueueNotFound, "the migration names no queue"))?;
        let mut connected = self.connected.lock().await;
        if let Some(broker) = connected.as_ref() {
            return Ok((broker.clone(), queue));
        }
        let url = self.url(&subject.source.namespace, &queue).await?;
        let broker = (self.brokers)(url);
        *connected = Some(broker.clone());
        Ok((broker, queue))
    }

    async fn url(&self, namespace: &str, queue: &MessageQueue) -> Result<BrokerUrl, EffectError> {
        let unusable = |message: String| EffectError::failed(Reason::BrokerUnreachable, message);
        let Some(name) = &queue.broker_secret else {
            return queue.broker_url.as_ref().map(|url| BrokerUrl::new(url.clone())).ok_or_else(|| {
                unusable("no broker is named: set migration.ms2m.io/broker-secret".to_owned())
            });
        };
        let secret = Api::<Secret>::namespaced(self.client.clone(), namespace)
            .get(name)
            .await
            .map_err(|error| unusable(format!("Secret {namespace}/{name}: {error}")))?;
        // RabbitMQ's cluster operator writes the other.
        let data = secret.data.unwrap_or_default();
        let bytes = SECRET_KEYS.iter().find_map(|key| data.get(*key)).map(|value| value.0.clone());
        bytes
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .map(|url| BrokerUrl::new(url.trim().to_owned()))
            .ok_or_else(|| {
                unusable(format!("Secret {namespace}/{name} has no key `url` or `connection_string`"))
            })
    }

    /// The next call connects anew.
    async fn forget(&self) {
        *self.connected.lock().await = None;
    }
}

/// Looks at the queue before anything is begun: what the user may want to know of it.
///
/// # Errors
/// A terminal failure where its consumer cannot be paused without losing messages. A broker that does not answer is none.
pub async fn look_at_queue(ctx: &Context, subject: &Subject) -> Result<Vec<String>, Failure> {
    if subject.queue.is_none() {
        return Ok(Vec::new());
    }
    let link = BrokerLink::new(ctx.client.clone(), ctx.brokers.clone());
    let looked = tokio::time::timeout(LOOK_LIMIT, async {
        let (broker, queue) = link.get(subject).await?;
        let facts = broker.preflight(&queue.queue).await?;
        match facts.refusal(&queue.queue) {
            Some(error) => Err(EffectError::from(error)),
            None => Ok(facts.cautions(&queue.queue)),
        }
    });
    match looked.await {
        Ok(Ok(cautions)) => Ok(cautions),
        Ok(Err(error)) if !error.failure.retry => Err(error.failure),
        Ok(Err(error)) => Ok(vec![error.failure.message]),
        Err(_) => {
            Ok(vec![format!("the broker did not tell within {} s what the queue is", LOOK_LIMIT.as_secs())])
        }
    }
}

impl From<BrokerError> for EffectError {
    fn from(error: BrokerError) -> Self {
        let transient = matches!(
            error,
            BrokerError::Unreachable { .. } | BrokerError::Protocol { .. } | BrokerError::InUse { .. }
        );
        let reason = error.reason();
        let message = error.to_string();
        if matches!(error, BrokerError::QueueNotSupported { .. }) {
            return Self::terminal(reason, message);
        }
        if transient { Self::transient(reason, message) } else { Self::failed(reason, message) }
    }
}

impl Performer {
    fn queues(&self, journal: &Journal, queue: &MessageQueue) -> MigrationQueues {
        let mut queues = MigrationQueues::new(self.uid.clone(), journal.state.epoch, &queue.queue);
        let source = &journal.subject.source.name;
        if journal.state.replacement.as_ref().is_some_and(|replacement| replacement.name != *source) {
            queues = queues.with_helper(source); // that name is gone for good, and its control queue with it
        }
        if journal.state.shadow_sent {
            queues.with_helper(shadow_name(source, journal.state.epoch))
        } else {
            queues
        }
    }

    fn resume_order(&self, journal: &Journal, queue: &MessageQueue, pod: &str) -> ResumeOrder {
        // Only a consumer that answered told its position.
        let answers = journal.state.position.is_some();
        ResumeOrder { pod: pod.to_owned(), queues: self.queues(journal, queue), answers }
    }

    /// A broken connection is not used again. One that an alarm blocks is kept: it cannot be closed before the alarm is
    /// over, and each retry would add one.
    async fn heeded<T: Send>(&self, result: Result<T, BrokerError>) -> Result<T, EffectError> {
        if matches!(&result, Err(error) if !matches!(error, BrokerError::Blocked { .. })) {
            self.broker.forget().await;
        }
        result.map_err(EffectError::from)
    }

    pub(super) async fn declare_parking(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let (broker, queue) = self.broker.get(&journal.subject).await?;
        let facts = self.heeded(broker.preflight(&queue.queue).await).await?;
        if let Some(error) = facts.refusal(&queue.queue) {
            return Err(error.into());
        }
        let queues = self.queues(journal, &queue);
        self.heeded(broker.declare_parking(&queues).await).await?;
        if journal.state.plan.bridge {
            // Should the source start anew between its parking and the dump, its shadow would otherwise wake up as a
            // second consumer.
            let pod = shadow_name(&journal.subject.source.name, journal.state.epoch);
            self.heeded(broker.leave_park(&ParkOrder { pod, queues }).await).await?;
        }
        Ok(Outcome::ParkingDeclared)
    }

    pub(super) async fn park(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let (broker, queue) = self.broker.get(&journal.subject).await?;
        let order =
            ParkOrder { pod: journal.subject.source.name.clone(), queues: self.queues(journal, &queue) };
        let parked = self.heeded(broker.park(&order, PARK_LIMIT).await).await?;
        Ok(Outcome::Parked { position: parked.position })
    }

    pub(super) async fn resume(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let survivor = journal.state.replacement.as_ref().map_or(&journal.subject.source.name, |r| &r.name);
        let (broker, queue) = self.broker.get(&journal.subject).await?;
        let order = self.resume_order(journal, &queue, survivor);
        match broker.resume(&order, RESUME_LIMIT).await {
            // It was deleted before it could be told; the messages wait for whoever its owner makes next.
            Err(BrokerError::NeverResumed { .. } | BrokerError::ConsumerWithoutControlQueue { .. })
                if self.is_replacement_gone(journal).await? =>
            {
                Ok(Outcome::Resumed { position: None })
            }
            resumed => {
                let position = self.heeded(resumed).await?.position;
                Ok(Outcome::Resumed { position })
            }
        }
    }

    pub(super) async fn resume_source(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let (broker, queue) = self.broker.get(&journal.subject).await?;
        let order = self.resume_order(journal, &queue, &journal.subject.source.name);
        match broker.resume(&order, RESUME_LIMIT).await {
            // Nobody reads its control queue, so nobody obeyed the order to park either.
            Err(BrokerError::ConsumerWithoutControlQueue { .. }) => Ok(Outcome::SourceResumed),
            // Nobody to resume: the messages wait in the queue for whoever comes after it.
            Err(BrokerError::NeverResumed { .. }) if self.is_source_gone(journal).await? => {
                Ok(Outcome::SourceResumed)
            }
            resumed => self.heeded(resumed).await.map(|_| Outcome::SourceResumed),
        }
    }

    /// Whoever still sits on the parking queue is told once more to take messages: it may have started anew and found
    /// the old order to park.
    pub(super) async fn drop_parking(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let (broker, queue) = self.broker.get(&journal.subject).await?;
        let dropped = broker.drop_parking(&self.queues(journal, &queue)).await;
        if matches!(dropped, Err(BrokerError::InUse { .. })) {
            let survivor =
                journal.state.replacement.as_ref().map_or(&journal.subject.source.name, |r| &r.name);
            let order = self.resume_order(journal, &queue, survivor);
            self.heeded(broker.resume(&order, RESUME_LIMIT).await).await?;
        }
        self.heeded(dropped).await?;
        Ok(Outcome::ParkingDropped)
    }
}
