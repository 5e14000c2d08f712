//! The consumer's side of the control protocol: copy this.
//!
//! # Rules it keeps
//! * Messages are applied in order and acknowledged after they are applied.
//! * Park: cancel the subscription, apply what was delivered and acknowledge it in few pieces, wait until the broker has
//!   taken that, consume the parking queue, then answer. Nothing is handed back: a quorum queue would return
//!   it out of order.
//! * On every connection the control queue comes first, and a parked consumer never touches the primary queue. After
//!   a restore the memory says that it is parked, the sockets are closed, and the pod may have another name: that is
//!   read from /etc/hostname each time (the environment and `gethostname()` are still the source's).
//! * An order to park on a queue that does not exist is void: its attempt is over, and nobody would end it.
//! * The order that parks it is acknowledged only when it resumes. So the broker gives it to whoever comes next under
//!   this name: a process that crashed while it was parked starts parked again.

use std::convert::Infallible;
use std::time::Duration;

use clap::Parser;
use futures::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ErrorKind};
use shadow::api::control_queue;
use shadow::broker::control::{AnswerType, Fence, Order};
use shadow::broker::{ConsumerGate, Decision, answer};
use tokio::time::{sleep, timeout};

use super::state::Shared;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Connecting, and anything the broker has to answer.
const CALL: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long orders that already lay on the control queue are waited for; nothing is consumed before they have come.
const ORDERS_FIRST: Duration = Duration::from_millis(500);
/// How often the pod's name and a parking queue that is not there are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// What was delivered before a cancellation is acknowledged in at most that many pieces, and the rest.
const FEW: u16 = 16;
/// Seconds.
const HEARTBEAT: u16 = 5;
const NOT_FOUND: u16 = 404;

#[derive(Clone, Parser)]
pub struct Config {
    #[arg(
        long,
        env = "AMQP_URL",
        default_value = "amqp://guest:guest@localhost:5672/%2f",
        hide_env_values = true
    )]
    pub amqp_url: String,
    /// The primary queue.
    #[arg(long, env = "QUEUE", default_value = "orders")]
    pub queue: String,
    #[arg(long, env = "PREFETCH", default_value_t = 50)]
    pub prefetch: u16,
    /// How long the work on one message takes, in milliseconds.
    #[arg(long, env = "WORK_MS", default_value_t = 0)]
    pub work_ms: u64,
    /// The file that holds the pod's name.
    #[arg(long, env = "HOSTNAME_FILE", default_value = "/etc/hostname")]
    pub hostname_file: String,
}

pub struct Consumer {
    config: Config,
    state: Shared,
    gate: ConsumerGate,
}

/// A queue that is being consumed, on a channel of its own.
struct Subscription {
    channel: Channel,
    consumer: lapin::Consumer,
}

/// One connection under one pod name.
struct Session {
    pod: String,
    connection: Connection,
    control: Channel,
    /// The order that parked this consumer, not acknowledged yet.
    held: Option<Delivery>,
    subscription: Option<Subscription>,
    /// The channel of the subscription before, see [`Consumer::leave`].
    left: Option<Channel>,
}

impl Consumer {
    pub fn new(config: Config, state: Shared) -> Self {
        Self { config, state, gate: ConsumerGate::default() }
    }

    /// Consumes for ever; a lost connection is opened again at once, then less and less often.
    pub async fn run(mut self) -> Infallible {
        let mut pause = Duration::ZERO;
        loop {
            let sessions = self.state.lock().sessions;
            let Err(error) = self.session().await;
            let established = {
                let mut state = self.state.lock();
                state.connected = false;
                state.sessions > sessions
            };
            tracing::warn!(%error, "connection ended");
            pause = if established { Duration::ZERO } else { (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE) };
            sleep(pause).await;
        }
    }

    /// One connection, from its opening to its end.
    async fn session(&mut self) -> Result<Infallible, Failure> {
        let pod = self.pod_name()?;
        let mut uri: AMQPUri = self.config.amqp_url.parse()?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        let properties = ConnectionProperties::default().with_connection_name(pod.clone().into());
        let connection = timeout(CALL, Connection::connect_uri(uri, properties)).await??;
        let control = timeout(CALL, connection.create_channel()).await??;
        let queue = control_queue(&pod);
        let declared = control.queue_declare(
            queue.as_str().into(),
            QueueDeclareOptions::durable(),
            FieldTable::default(),
        );
        let mut waiting = timeout(CALL, declared).await??.message_count();
        let mut orders = consume(&control, &queue).await?;
        {
            let mut state = self.state.lock();
            state.pod.clone_from(&pod);
            state.connected = true;
            state.parked = self.gate.parked_on().is_some();
            state.sessions += 1;
        }
        tracing::info!(pod, waiting, parked_on = self.gate.parked_on(), "connected");
        let mut session = Session { pod, connection, control, held: None, subscription: None, left: None };

        while waiting > 0 {
            let order =
                timeout(ORDERS_FIRST, orders.next()).await.map_err(|_| "orders that wait do not come")?;
            self.obey(&mut session, order.ok_or("control queue is gone")??).await?;
            waiting -= 1;
        }
        loop {
            if session.subscription.is_none() {
                session.subscription = self.subscribe(&session.connection).await?;
            }
            let messages = match session.subscription.as_mut() {
                Some(subscription) => subscription.consumer.next().left_future(),
                None => futures::future::pending().right_future(),
            };
            tokio::select! {
                biased;
                order = orders.next() => {
                    let order = order.ok_or("control queue is gone")??;
                    self.obey(&mut session, order).await?;
                }
                message = messages => {
                    let applied = self.apply(message.ok_or("queue is gone")??).await?;
                    acknowledge(&applied).await?;
                }
                () = sleep(LOOK) => {
                    if self.pod_name()? != session.pod {
                        return Err("the pod has another name".into());
                    }
                }
            }
        }
    }

    fn pod_name(&self) -> std::io::Result<String> {
        Ok(std::fs::read_to_string(&self.config.hostname_file)?.trim().to_owned())
    }

    /// The queue to consume now: the parking queue while parked, the primary otherwise. A parking queue that does
    /// not exist is waited for; the primary must be there.
    async fn subscribe(&self, connection: &Connection) -> Result<Option<Subscription>, Failure> {
        let channel = timeout(CALL, connection.create_channel()).await??;
        self.flush(&channel).await?;
        let queue = self.gate.parked_on().unwrap_or(&self.config.queue);
        match consume(&channel, queue).await {
            Ok(consumer) => Ok(Some(Subscription { channel, consumer })),
            Err(error) if self.gate.parked_on().is_some() && is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets the prefetch, and waits for that: what was sent on this channel before has arrived then.
    async fn flush(&self, channel: &Channel) -> Result<(), Failure> {
        Ok(timeout(CALL, channel.basic_qos(self.config.prefetch, BasicQosOptions::default())).await??)
    }

    async fn obey(&mut self, session: &mut Session, delivery: Delivery) -> Result<(), Failure> {
        let order = match Order::from_slice(&delivery.data) {
            Ok(order) => order,
            Err(error) => {
                tracing::warn!(%error, "order ignored");
                return acknowledge(&delivery).await;
            }
        };
        let before = self.gate.clone();
        let decision = self.gate.decide(order);
        tracing::info!(?decision, "order");
        match decision {
            Decision::Park { answer, .. } => {
                let seat = match self.leave(session).await {
                    Ok(()) => self.subscribe(&session.connection).await,
                    Err(error) => Err(error),
                };
                if !matches!(seat, Ok(Some(_))) {
                    // Not seated, not answered: as if nothing had been ordered.
                    self.gate = before;
                }
                session.subscription = seat?;
                if session.subscription.is_none() {
                    tracing::warn!("the parking queue is gone, so that attempt is over: the order is void");
                    return acknowledge(&delivery).await;
                }
                self.state.lock().parked = true;
                if let Some(superseded) = session.held.replace(delivery) {
                    acknowledge(&superseded).await?;
                }
                self.answer(session, AnswerType::Parked, answer.as_ref()).await
            }
            Decision::Resume { answer } => {
                self.leave(session).await?;
                self.state.lock().parked = false;
                session.subscription = self.subscribe(&session.connection).await?;
                if let Some(parking) = session.held.take() {
                    acknowledge(&parking).await?;
                }
                self.answer(session, AnswerType::Resumed, answer.as_ref()).await?;
                acknowledge(&delivery).await
            }
            Decision::AnswerAgain(kind, fence) => {
                self.answer(session, kind, Some(&fence)).await?;
                if kind == AnswerType::Parked && session.held.is_none() {
                    session.held = Some(delivery);
                    return Ok(());
                }
                acknowledge(&delivery).await
            }
            Decision::Ignore => acknowledge(&delivery).await,
        }
    }

    /// Ends the subscription at a message boundary with nothing unacknowledged. Its channel stays open until the next one
    /// is left: for a quorum queue it holds acknowledgements back while 32 are under way (`SOFT_LIMIT` in RabbitMQ's
    /// rabbit_fifo_client.erl), sends them once those are applied, and forgets them when it is closed before that. So
    /// with a prefetch below 32 none can be forgotten, and above it only if the broker needs longer than the pause.
    async fn leave(&self, session: &mut Session) -> Result<(), Failure> {
        let Some(Subscription { channel, mut consumer }) = session.subscription.take() else { return Ok(()) };
        let cancel = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
        timeout(CALL, cancel).await??;
        self.flush(&channel).await?;
        // After the broker's confirmation nothing more is delivered; this ends with what was.
        let (mut applied, mut count) = (None, 0);
        while let Some(message) = consumer.next().await {
            let last = applied.insert(self.apply(message?).await?);
            count += 1;
            if count == piece(self.config.prefetch) {
                acknowledge_up_to(last).await?;
                (applied, count) = (None, 0);
            }
        }
        if let Some(last) = applied {
            acknowledge_up_to(&last).await?;
        }
        self.flush(&channel).await?;
        match session.left.replace(channel) {
            Some(earlier) => Ok(timeout(CALL, earlier.close(200, "done".into())).await??),
            None => Ok(()),
        }
    }

    async fn apply(&self, message: Delivery) -> Result<Delivery, Failure> {
        // The connection broke: the broker delivers it again, and it must not be applied twice.
        if !message.acker.usable() {
            return Err("connection lost".into());
        }
        if self.config.work_ms > 0 {
            sleep(Duration::from_millis(self.config.work_ms)).await;
        }
        let id = message.properties.message_id().as_ref().and_then(|id| id.as_str().parse().ok());
        self.state.lock().apply(id, &message.data, message.redelivered);
        Ok(message)
    }

    async fn answer(
        &self,
        session: &Session,
        kind: AnswerType,
        fence: Option<&Fence>,
    ) -> Result<(), Failure> {
        let Some(fence) = fence else { return Ok(()) };
        let (position, last_id) = {
            let state = self.state.lock();
            (state.count, state.last_id.map(|id| id.to_string()))
        };
        let body = answer(kind, fence, &session.pod, position, last_id).to_vec()?;
        let properties =
            BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(2);
        // Not mandatory: who does not wait any more has deleted the queue.
        let options = BasicPublishOptions::default();
        let key = fence.reply_to.as_str().into();
        session.control.basic_publish("".into(), key, options, &body, properties).await?;
        Ok(())
    }
}

async fn consume(channel: &Channel, queue: &str) -> Result<lapin::Consumer, Failure> {
    let options = BasicConsumeOptions::default();
    Ok(timeout(CALL, channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()))
        .await??)
}

/// How many messages are acknowledged at once after a cancellation. A prefetch of 0 means any number of them.
fn piece(prefetch: u16) -> u16 {
    if prefetch == 0 { u16::MAX } else { prefetch.div_ceil(FEW) }
}

async fn acknowledge(delivery: &Delivery) -> Result<(), Failure> {
    settle(delivery, BasicAckOptions::default()).await
}

/// And all that was delivered before it on its channel.
async fn acknowledge_up_to(delivery: &Delivery) -> Result<(), Failure> {
    settle(delivery, BasicAckOptions { multiple: true }).await
}

async fn settle(delivery: &Delivery, options: BasicAckOptions) -> Result<(), Failure> {
    if delivery.ack(options).await? {
        return Ok(());
    }
    Err("connection lost before the acknowledgement".into())
}

fn is_missing(error: &Failure) -> bool {
    let error = error.downcast_ref::<lapin::Error>().map(lapin::Error::kind);
    matches!(error, Some(ErrorKind::ProtocolError(error)) if error.get_id() == NOT_FOUND)
}
