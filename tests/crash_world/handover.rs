//! `shadow::broker::Broker` on the broker of this world: the operations that `AmqpBroker` performs, in its order, each a
//! call that can be struck. Only consumers that answer are known here.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use shadow::api::control_queue;
use shadow::broker::control::{Answer, AnswerType, Fence, Order, OrderPayload, OrderType};
use shadow::broker::{
    Broker, BrokerError, MigrationQueues, ParkOrder, Parked, Proof, QueueFacts, QueueKind, ResumeOrder,
    Resumed,
};
use tokio::time::{Instant, timeout_at};

use super::World;
use super::broker::{Broker as Queues, Counts, StillNeeded};
use super::wire::Line;

const REPEAT: Duration = Duration::from_secs(1);
const IN_USE_FOR: Duration = Duration::from_secs(2);

pub struct MemoryBroker {
    world: World,
    line: Line,
}

impl MemoryBroker {
    pub fn new(world: World, line: Line) -> Self {
        Self { world, line }
    }

    async fn call<T: Send + 'static>(
        &self,
        what: String,
        work: impl FnOnce(&Queues) -> T + Send + 'static,
    ) -> Result<T, BrokerError> {
        let world = self.world.clone();
        let done = self.line.call(&format!("broker: {what}"), async move { work(&world.broker) }).await;
        done.ok().filter(|_| !self.world.broker_is_gone.load(Ordering::SeqCst)).ok_or_else(|| {
            BrokerError::Unreachable { broker: "memory".into(), cause: "connection reset".into() }
        })
    }

    async fn look(&self, queue: &str) -> Result<Option<Counts>, BrokerError> {
        let name = queue.to_owned();
        self.call(format!("look at {queue}"), move |queues| queues.counts(&name)).await
    }

    async fn declare(&self, queue: String) -> Result<u32, BrokerError> {
        self.call(format!("declare {queue}"), move |queues| queues.declare(&queue)).await
    }

    async fn send(&self, pod: &str, of: &MigrationQueues, kind: OrderType) -> Result<bool, BrokerError> {
        let queue = match kind {
            OrderType::StartReplay => of.parking(),
            OrderType::EndReplay => of.primary.clone(),
        };
        let fence = Fence { migration: of.migration.clone(), epoch: of.epoch, reply_to: of.reply() };
        let order = Order { kind, payload: OrderPayload { queue }, fence: Some(fence) };
        let (body, to) = (order.to_vec().unwrap(), control_queue(pod));
        self.call(format!("publish {kind:?} to {to}"), move |queues| queues.publish(&to, body)).await
    }

    async fn delete(&self, queue: String, if_unused: bool, if_empty: bool) -> Result<(), BrokerError> {
        let until = Instant::now() + IN_USE_FOR;
        loop {
            let name = queue.clone();
            let deleted = self
                .call(format!("delete {queue}"), move |queues| queues.delete(&name, if_unused, if_empty))
                .await?;
            match deleted {
                Ok(()) => return Ok(()),
                Err(StillNeeded(counts)) if if_empty && counts.messages > 0 => {
                    return Err(BrokerError::NotEmpty { queue, messages: counts.messages });
                }
                Err(_) if Instant::now() >= until => return Err(BrokerError::InUse { queue }),
                Err(_) => {
                    let mut changes = self.world.broker.changes();
                    let _ = timeout_at(until, changes.changed()).await;
                }
            }
        }
    }

    /// Sends the order again and again until it is answered.
    async fn order(
        &self,
        pod: &str,
        of: &MigrationQueues,
        kind: OrderType,
        deadline: Instant,
    ) -> Result<Result<Answer, bool>, BrokerError> {
        let primary = of.primary.clone();
        if self.look(&primary).await?.is_none() {
            return Err(BrokerError::QueueNotFound { queue: primary });
        }
        self.declare(of.reply()).await?;
        self.look(&of.parking()).await?;
        let earlier = self.answers(of).await?;
        let mut routed = self.send(pod, of, kind).await?;
        if !routed && kind == OrderType::EndReplay && !earlier.is_empty() {
            self.declare(control_queue(pod)).await?;
            routed = self.send(pod, of, kind).await?;
        }
        if !routed && kind == OrderType::StartReplay {
            return Ok(Err(false));
        }
        let wanted = if kind == OrderType::StartReplay { AnswerType::Parked } else { AnswerType::Resumed };
        let mut repeat_at = Instant::now() + REPEAT;
        let mut changes = self.world.broker.changes();
        loop {
            changes.borrow_and_update();
            let queue = of.reply();
            let Some(lies) = self.line.aside(async { self.world.broker.peek(&queue) }).await else {
                let cause = format!("the reply queue {queue} was deleted");
                return Err(BrokerError::Protocol { operation: "basic.consume", cause });
            };
            let answers = lies.iter().filter_map(|body| Answer::from_slice(body).ok());
            let mut of_attempt = answers.filter(|a| a.migration == of.migration && a.epoch == of.epoch);
            if let Some(answer) = of_attempt.find(|a| a.pod == pod && a.kind == wanted) {
                return Ok(Ok(answer));
            }
            if Instant::now() >= deadline {
                return Ok(Err(routed));
            }
            if timeout_at(repeat_at.min(deadline), changes.changed()).await.is_err() {
                repeat_at = Instant::now() + REPEAT;
                routed = self.send(pod, of, kind).await? || routed;
            }
        }
    }

    async fn answers(&self, of: &MigrationQueues) -> Result<Vec<Vec<u8>>, BrokerError> {
        let queue = of.reply();
        let read = self.call(format!("consume {queue}"), move |queues| queues.peek(&queue)).await?;
        Ok(read.unwrap_or_default())
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    async fn preflight(&self, queue: &str) -> Result<QueueFacts, BrokerError> {
        let Some(counts) = self.look(queue).await? else {
            return Err(BrokerError::QueueNotFound { queue: queue.to_owned() });
        };
        Ok(QueueFacts {
            kind: QueueKind::Classic,
            consumers: counts.consumers,
            messages: counts.messages,
            ..QueueFacts::default()
        })
    }

    async fn declare_parking(&self, queues: &MigrationQueues) -> Result<(), BrokerError> {
        self.declare(queues.parking()).await?;
        self.declare(queues.reply()).await.map(drop)
    }

    async fn leave_park(&self, order: &ParkOrder) -> Result<(), BrokerError> {
        self.declare(control_queue(&order.pod)).await?;
        self.send(&order.pod, &order.queues, OrderType::StartReplay).await.map(drop)
    }

    async fn park(&self, order: &ParkOrder, within: Duration) -> Result<Parked, BrokerError> {
        let pod = order.pod.clone();
        match self.order(&pod, &order.queues, OrderType::StartReplay, Instant::now() + within).await? {
            Ok(Answer { position, last_id, .. }) => {
                Ok(Parked { position, last_id, proof: Proof::Acknowledged })
            }
            Err(true) => Err(BrokerError::ConsumerNeverParked { pod, within, seen: "no answer".into() }),
            Err(false) => Err(BrokerError::ConsumerWithoutControlQueue { pod }),
        }
    }

    async fn resume(&self, order: &ResumeOrder, within: Duration) -> Result<Resumed, BrokerError> {
        let pod = order.pod.clone();
        match self.order(&pod, &order.queues, OrderType::EndReplay, Instant::now() + within).await? {
            Ok(Answer { position, last_id, .. }) => {
                Ok(Resumed { position, last_id, proof: Proof::Acknowledged })
            }
            Err(true) => Err(BrokerError::NeverResumed { pod, within, seen: "no answer".into() }),
            Err(false) => Err(BrokerError::ConsumerWithoutControlQueue { pod }),
        }
    }

    async fn drop_parking(&self, queues: &MigrationQueues) -> Result<(), BrokerError> {
        self.delete(queues.parking(), true, true).await?;
        for pod in &queues.helpers {
            self.delete(control_queue(pod), true, false).await?;
        }
        self.delete(queues.reply(), false, false).await
    }
}
