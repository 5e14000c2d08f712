//! Park and resume: send the order, then wait for the consumer's answer or the broker's proof. Network I/O.
//!
//! Answers are read and never acknowledged: they stay on the reply queue until it is dropped, so a call that is
//! repeated after a restart finds them again, and a resume knows whether its consumer is one that answers.

use std::time::Duration;

use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;
use lapin::{BasicProperties, Consumer};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};
use tracing::{debug, warn};

use super::link::{Link, Session, name};
use super::queues::{Counts, Probe, declare_durable, declare_replies};
use crate::api::control_queue;
use crate::broker::control::{Answer, AnswerType, Fence, Order, OrderPayload, OrderType};
use crate::broker::{BrokerError, MigrationQueues, ParkOrder, Parked, Proof, ResumeOrder, Resumed};

/// How often the broker is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// An order is repeated that often: an answer is lost if the consumer's connection breaks.
const REPEAT: Duration = Duration::from_secs(1);
/// A consumer that answers does so right after the broker shows it; this long the answer is preferred.
const ANSWER_GRACE: Duration = Duration::from_millis(250);
/// How long answers that lie on the reply queue take to arrive.
const EARLIER_GRACE: Duration = Duration::from_millis(200);
/// A quorum queue shows a cancelled consumer some milliseconds late; after this long what it shows is settled.
const SETTLED: Duration = Duration::from_secs(1);
/// After an answer, the broker is given that long to show it too: what a quorum queue was about to deliver when it was
/// cancelled, it takes back some milliseconds later.
const SHOW_GRACE: Duration = Duration::from_millis(100);
/// A PARK is not kept longer than any migration lasts.
const PARK_LIVES: Duration = Duration::from_secs(600);

pub(super) async fn leave_park(link: &Link, order: &ParkOrder) -> Result<(), BrokerError> {
    let session = link.session().await?;
    declare_durable(&session, &control_queue(&order.pod), FieldTable::default()).await?;
    send(&session, &order.pod, &order.queues, OrderType::StartReplay).await.map(drop)
}

pub(super) async fn park(link: &Link, order: &ParkOrder, within: Duration) -> Result<Parked, BrokerError> {
    let deadline = Instant::now() + within;
    let mut handover = Handover::begin(link, &order.pod, &order.queues, OrderType::StartReplay).await?;
    if !handover.send().await? {
        return Err(BrokerError::ConsumerWithoutControlQueue { pod: order.pod.clone() });
    }
    match handover.wait(deadline).await? {
        Some((position, last_id, proof)) => {
            if proof == Proof::Acknowledged {
                handover.shown().await?;
            }
            Ok(Parked { position, last_id, proof })
        }
        None => {
            let seen = handover.describe();
            Err(BrokerError::ConsumerNeverParked { pod: order.pod.clone(), within, seen })
        }
    }
}

pub(super) async fn resume(
    link: &Link,
    order: &ResumeOrder,
    within: Duration,
) -> Result<Resumed, BrokerError> {
    let deadline = Instant::now() + within;
    let mut handover = Handover::begin(link, &order.pod, &order.queues, OrderType::EndReplay).await?;
    handover.read_earlier().await?;
    let mut routed = handover.send().await?;
    if !routed && handover.answers {
        // It speaks the protocol and has a new name: the order is there when it connects.
        declare_durable(&handover.session, &control_queue(&order.pod), FieldTable::default()).await?;
        routed = handover.send().await?;
    }
    match handover.wait(deadline).await? {
        Some((position, last_id, proof)) => Ok(Resumed { position, last_id, proof }),
        None if !routed => Err(BrokerError::ConsumerWithoutControlQueue { pod: order.pod.clone() }),
        None => {
            let seen = handover.describe();
            Err(BrokerError::NeverResumed { pod: order.pod.clone(), within, seen })
        }
    }
}

/// Position, last id, and how it is known.
type Found = (Option<u64>, Option<String>, Proof);

/// Sends an order. False if the pod has no control queue.
async fn send(
    session: &Session<'_>,
    pod: &str,
    queues: &MigrationQueues,
    kind: OrderType,
) -> Result<bool, BrokerError> {
    let queue = match kind {
        OrderType::StartReplay => queues.parking(),
        OrderType::EndReplay => queues.primary.clone(),
    };
    let reply_to = queues.reply();
    let fence =
        Fence { migration: queues.migration.clone(), epoch: queues.epoch, reply_to: reply_to.clone() };
    let body = Order { kind, payload: OrderPayload { queue }, fence: Some(fence) }
        .to_vec()
        .map_err(|error| BrokerError::Protocol { operation: "order", cause: error.to_string() })?;
    let mut properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(2)
        .with_reply_to(name(&reply_to)?);
    if kind == OrderType::StartReplay {
        properties = properties.with_expiration(PARK_LIVES.as_millis().to_string().into());
    }
    session.publish(&control_queue(pod), &body, properties).await
}

/// One order on its way to be proven.
struct Handover<'a> {
    session: Session<'a>,
    probe: Probe<'a>,
    replies: Consumer,
    pod: &'a str,
    queues: &'a MigrationQueues,
    kind: OrderType,
    begun: Instant,
    /// What the two queues showed before the order.
    before: (Counts, Counts),
    /// What they showed last.
    now: (Counts, Counts),
    /// Answers that lay on the reply queue when this began.
    earlier: u32,
    /// The consumer has answered an order of this attempt, so it will answer this one.
    answers: bool,
    /// The last order reached a control queue.
    routed: bool,
}

impl<'a> Handover<'a> {
    async fn begin(
        link: &'a Link,
        pod: &'a str,
        queues: &'a MigrationQueues,
        kind: OrderType,
    ) -> Result<Self, BrokerError> {
        let session = link.session().await?;
        let mut probe = Probe::new(link);
        let primary = probe.must_exist(&queues.primary).await?;
        let earlier = declare_replies(&session, queues).await?;
        let parking = probe.look(&queues.parking()).await?.unwrap_or_default();
        let consume = session.channel.basic_consume(
            name(&queues.reply())?,
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let replies = session.call("basic.consume", consume).await?;
        let (before, begun) = ((primary, parking), Instant::now());
        let (now, answers, routed) = (before, false, true);
        Ok(Self { session, probe, replies, pod, queues, kind, begun, before, now, earlier, answers, routed })
    }

    async fn send(&mut self) -> Result<bool, BrokerError> {
        self.routed = send(&self.session, self.pod, self.queues, self.kind).await?;
        Ok(self.routed)
    }

    /// Looks through what was answered before this call.
    async fn read_earlier(&mut self) -> Result<(), BrokerError> {
        let until = Instant::now() + EARLIER_GRACE;
        while self.earlier > 0 {
            let Ok(reply) = timeout_at(until, self.replies.next()).await else { break };
            let delivery = self.delivered(reply)?;
            self.read(&delivery.data);
            self.earlier -= 1;
        }
        Ok(())
    }

    fn delivered(&self, reply: Option<lapin::Result<Delivery>>) -> Result<Delivery, BrokerError> {
        match reply {
            Some(Ok(delivery)) => Ok(delivery),
            Some(Err(error)) => Err(self.session.explain("basic.consume", &error)),
            None => Err(BrokerError::Protocol {
                operation: "basic.consume",
                cause: format!("the reply queue {} was deleted", self.queues.reply()),
            }),
        }
    }

    /// None when the deadline has passed without answer or proof.
    async fn wait(&mut self, deadline: Instant) -> Result<Option<Found>, BrokerError> {
        timeout_at(deadline, self.proof()).await.ok().transpose()
    }

    async fn proof(&mut self) -> Result<Found, BrokerError> {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut repeat_at = self.begun + REPEAT;
        let mut shown_since = None;
        loop {
            tokio::select! {
                biased;
                reply = self.replies.next() => {
                    let delivery = self.delivered(reply)?;
                    if let Some(found) = self.read(&delivery.data) {
                        return Ok(found);
                    }
                }
                _ = looks.tick() => {
                    self.look().await?;
                    if self.answers || !self.is_shown() {
                        shown_since = None;
                    } else if shown_since.get_or_insert_with(Instant::now).elapsed() >= self.grace() {
                        return Ok((None, None, Proof::ByBroker));
                    }
                    if Instant::now() >= repeat_at || !self.routed {
                        repeat_at = Instant::now() + REPEAT;
                        self.send().await?;
                    }
                }
            }
        }
    }

    /// How long the broker must show it before that counts. An order that found no control queue proves nothing yet:
    /// the consumer may just be coming.
    fn grace(&self) -> Duration {
        if self.routed { ANSWER_GRACE } else { SETTLED }
    }

    /// The answer waited for, or None.
    fn read(&mut self, body: &[u8]) -> Option<Found> {
        let answer = match Answer::from_slice(body) {
            Ok(answer) => answer,
            Err(error) => {
                warn!(queue = self.queues.reply(), %error, "an answer that cannot be read");
                return None;
            }
        };
        if (&answer.migration, answer.epoch) != (&self.queues.migration, self.queues.epoch) {
            debug!(pod = answer.pod, epoch = %answer.epoch, "an answer to another attempt");
            return None;
        }
        // Whichever pod it was: it is the same program that carries on.
        self.answers = true;
        if answer.pod != self.pod {
            return None;
        }
        let wanted = match self.kind {
            OrderType::StartReplay => AnswerType::Parked,
            OrderType::EndReplay => AnswerType::Resumed,
        };
        (answer.kind == wanted).then_some((answer.position, answer.last_id, Proof::Acknowledged))
    }

    async fn look(&mut self) -> Result<(), BrokerError> {
        let primary = self.probe.must_exist(&self.queues.primary).await?;
        let parking = self.probe.look(&self.queues.parking()).await?.unwrap_or_default();
        self.now = (primary, parking);
        Ok(())
    }

    /// Waits a moment for the broker to show what the consumer has said.
    async fn shown(&mut self) -> Result<(), BrokerError> {
        let until = Instant::now() + SHOW_GRACE;
        self.look().await?;
        while !self.is_shown() && Instant::now() < until {
            sleep(LOOK).await;
            self.look().await?;
        }
        Ok(())
    }

    /// The broker shows that the order was obeyed. Other consumers may share the primary queue, so what counts is
    /// that it lost (or got) one; where the call is a repeated one the number before is not known, time is.
    fn is_shown(&self) -> bool {
        let (primary_before, parking_before) = (self.before.0.consumers, self.before.1.consumers);
        let (primary, parking) = (self.now.0.consumers, self.now.1.consumers);
        match self.kind {
            OrderType::StartReplay => {
                let left = primary == 0 || primary < primary_before;
                let repeated = parking_before > 0 && self.begun.elapsed() >= SETTLED;
                parking > 0 && (left || repeated)
            }
            OrderType::EndReplay => {
                let came = primary > primary_before && parking < parking_before;
                primary > 0 && (parking == 0 || came)
            }
        }
    }

    fn describe(&self) -> String {
        let (primary, parking) = self.now;
        format!(
            "no answer on {}; {} consumers on {}, {} on {}",
            self.queues.reply(),
            primary.consumers,
            self.queues.primary,
            parking.consumers,
            self.queues.parking()
        )
    }
}
