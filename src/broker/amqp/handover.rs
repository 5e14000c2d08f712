//! Park and resume: send the order, then wait for the consumer's answer or the broker's proof. Network I/O.
//!
//! Answers are read and never acknowledged: they stay on the reply queue until it is dropped, so a call that is
//! repeated after a restart finds them again, and a resume knows whether its consumer is one that answers.

use std::time::Duration;

use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Consumer};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};
use tracing::{debug, warn};

use super::link::{Link, Session, name};
use super::queues::{Counts, Probe, declare_durable, declare_replies};
use crate::api::control_queue;
use crate::broker::control::{Answer, AnswerType, Fence, Order, OrderPayload, OrderType};
use crate::broker::{
    BrokerError, MigrationQueues, PARK_LIVES, ParkOrder, Parked, Proof, ResumeOrder, Resumed,
};

/// How often the broker is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// An order is repeated that often: an answer is lost if the consumer's connection breaks.
const REPEAT: Duration = Duration::from_secs(1);
/// A consumer that answers does so right after the broker shows it; this long the answer is preferred.
const ANSWER_GRACE: Duration = Duration::from_millis(250);
/// How long answers that lie on the reply queue take to arrive.
const EARLIER_GRACE: Duration = Duration::from_millis(200);
/// A quorum queue shows a cancelled consumer some milliseconds late, and a lost connection may be shown for a moment;
/// after this long what the broker shows is settled.
const SETTLED: Duration = Duration::from_secs(1);

pub(super) async fn leave_park(link: &Link, order: &ParkOrder) -> Result<(), BrokerError> {
    let session = link.session().await?;
    declare_durable(&session, &control_queue(&order.pod), FieldTable::default()).await?;
    send(&session, &order.pod, &order.queues, OrderType::StartReplay).await.map(drop)
}

pub(super) async fn park(link: &Link, order: &ParkOrder, within: Duration) -> Result<Parked, BrokerError> {
    let deadline = Instant::now() + within;
    let mut handover = Handover::begin(link, &order.pod, &order.queues, OrderType::StartReplay).await?;
    handover.must_be_alone().await?;
    if !handover.send().await? {
        return Err(BrokerError::ConsumerWithoutControlQueue { pod: order.pod.clone() });
    }
    let seen = match handover.wait(deadline).await? {
        Some((position, last_id, proof)) if proof == Proof::ByBroker || handover.broker_agrees().await? => {
            return Ok(Parked { position, last_id, proof });
        }
        Some(_) => format!("it says that it is parked, but there are {}", handover.counts()),
        None => format!("no answer on {}; {}", order.queues.reply(), handover.counts()),
    };
    Err(BrokerError::ConsumerNeverParked { pod: order.pod.clone(), within, seen })
}

pub(super) async fn resume(
    link: &Link,
    order: &ResumeOrder,
    within: Duration,
) -> Result<Resumed, BrokerError> {
    let deadline = Instant::now() + within;
    let mut handover = Handover::begin(link, &order.pod, &order.queues, OrderType::EndReplay).await?;
    handover.answers = order.answers;
    if !order.answers {
        handover.read_earlier().await?;
    }
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
            let seen = format!("no answer on {}; {}", order.queues.reply(), handover.counts());
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

/// Primary and parking queue.
async fn look(probe: &mut Probe<'_>, queues: &MigrationQueues) -> Result<(Counts, Counts), BrokerError> {
    let primary = probe.must_exist(&queues.primary).await?;
    Ok((primary, probe.look(&queues.parking()).await?.unwrap_or_default()))
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
    /// How many orders this call has sent, and how many answers of the kind that is waited for it has read.
    sent: u32,
    read: u32,
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
        let reply = name(&queues.reply())?;
        let consume = async move |channel: Channel| {
            let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
            channel.basic_consume(reply, "".into(), options, arguments).await
        };
        let replies = session.call("basic.consume", consume).await?;
        let (before, begun) = ((primary, parking), Instant::now());
        let (now, answers, routed) = (before, false, true);
        Ok(Self {
            session,
            probe,
            replies,
            pod,
            queues,
            kind,
            begun,
            before,
            now,
            earlier,
            answers,
            routed,
            sent: 0,
            read: 0,
        })
    }

    /// Two pods of one name would share the orders to it.
    async fn must_be_alone(&mut self) -> Result<(), BrokerError> {
        let control = control_queue(self.pod);
        let until = Instant::now() + SETTLED;
        loop {
            let consumers = self.probe.look(&control).await?.unwrap_or_default().consumers;
            if consumers <= 1 {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(BrokerError::ControlQueueShared { pod: self.pod.to_owned(), consumers });
            }
            sleep(LOOK).await;
        }
    }

    async fn send(&mut self) -> Result<bool, BrokerError> {
        self.routed = send(&self.session, self.pod, self.queues, self.kind).await?;
        self.sent += u32::from(self.routed);
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
            let look = async {
                looks.tick().await;
                look(&mut self.probe, self.queues).await
            };
            // An answer may come while a look cannot get through: under an alarm the broker reads nothing more.
            tokio::select! {
                biased;
                reply = self.replies.next() => {
                    let delivery = self.delivered(reply)?;
                    if let Some(found) = self.read(&delivery.data) {
                        return Ok(found);
                    }
                }
                now = look => {
                    self.now = now?;
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
        if answer.kind != wanted {
            return None;
        }
        self.read += 1;
        Some((answer.position, answer.last_id, Proof::Acknowledged))
    }

    /// A consumer's word counts if the broker shows the same: it sits on the parking queue and left the primary. Waits
    /// for that no longer than it takes the broker to show what is so.
    async fn broker_agrees(&mut self) -> Result<bool, BrokerError> {
        let until = Instant::now() + SETTLED;
        loop {
            self.now = look(&mut self.probe, self.queues).await?;
            let repeated = self.now.1.consumers > 0 && self.before.1.consumers > 0;
            if self.is_shown() || repeated {
                return Ok(true);
            }
            if Instant::now() >= until {
                // More answers than orders: it obeyed one of an earlier call while this one began, so the number
                // before is not known.
                return Ok(self.now.1.consumers > 0 && self.read > self.sent);
            }
            if let Ok(reply) = timeout(LOOK, self.replies.next()).await {
                let delivery = self.delivered(reply)?;
                self.read(&delivery.data);
            }
        }
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

    fn counts(&self) -> String {
        let (primary, parking) = self.now;
        format!(
            "{} consumers on {}, {} on {}",
            primary.consumers,
            self.queues.primary,
            parking.consumers,
            self.queues.parking()
        )
    }
}
