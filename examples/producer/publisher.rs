//! Publishes on one channel, mandatory and with publisher confirms, so that the order in the queue is the order in
//! the ledger. Anything but a plain confirm stops it: a gap in the ledger would prove nothing.

use std::collections::VecDeque;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use lapin::options::ExchangeDeclareOptions;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};

use super::ledger::Shared;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const CALL: Duration = Duration::from_secs(5);
const RECONNECT: Duration = Duration::from_millis(200);
const MOST_UNDER_WAY: usize = 1_000;

#[derive(Clone, Copy, Default, ValueEnum)]
pub enum QueueType {
    #[default]
    Classic,
    Quorum,
}

#[derive(Clone, Parser)]
pub struct Config {
    #[arg(
        long,
        env = "AMQP_URL",
        default_value = "amqp://guest:guest@localhost:5672/%2f",
        hide_env_values = true
    )]
    pub amqp_url: String,
    #[arg(long, env = "QUEUE", default_value = "orders")]
    pub queue: String,
    #[arg(long, env = "QUEUE_TYPE", value_enum, default_value_t)]
    pub queue_type: QueueType,
    /// Topic exchange to publish to; without one, the queue is published to directly.
    #[arg(long, env = "EXCHANGE")]
    pub exchange: Option<String>,
    #[arg(long, env = "ROUTING_KEY", default_value = "orders")]
    pub routing_key: String,
    /// So many at once, at a rate that keeps the average.
    #[arg(long, env = "BURST", default_value_t = 1)]
    pub burst: u32,
    /// Stop after so many; 0 is never.
    #[arg(long, env = "COUNT", default_value_t = 0)]
    pub count: u64,
    /// Bytes of filling in each body.
    #[arg(long, env = "FILLING", default_value_t = 64)]
    pub filling: usize,
    /// After a lost connection, publish again what was not confirmed, though it may be in the queue already.
    #[arg(long, env = "RESEND")]
    pub resend: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Control {
    pub rate: u32,
    pub paused: bool,
    /// Another number asks for another connection, once nothing is under way.
    pub connection: u64,
}

/// A numbered body.
type Message = (u64, Vec<u8>);

/// Publishes 1, 2, 3, ... until COUNT or an error.
pub async fn publish(
    config: &Config,
    ledger: &Shared,
    mut control: watch::Receiver<Control>,
) -> Result<(), Failure> {
    let mut next_id = 1;
    let mut unconfirmed = VecDeque::new();
    let mut channel = open(config).await?;
    loop {
        let ended = connected(config, &channel.1, ledger, &mut control, &mut next_id, &mut unconfirmed).await;
        let error = match ended {
            Ok(()) => return Ok(()),
            Err(Ended::Refused(error)) => return Err(error),
            Err(Ended::Lost(error)) if !config.resend && !unconfirmed.is_empty() => {
                return Err(format!(
                    "{} messages may or may not be in the queue: {error}",
                    unconfirmed.len()
                )
                .into());
            }
            Err(Ended::Lost(error)) => error,
        };
        tracing::warn!(%error, unconfirmed = unconfirmed.len(), "connection lost");
        ledger.resent(unconfirmed.iter().map(|(id, _)| *id));
        channel = loop {
            sleep(RECONNECT).await;
            match open(config).await {
                Ok(channel) => break channel,
                Err(error) => tracing::warn!(%error, "not connected"),
            }
        };
    }
}

enum Ended {
    /// The broker said no: a nack, or a message that no queue took.
    Refused(Failure),
    /// Nobody knows what became of the unconfirmed ones.
    Lost(Failure),
}

/// The connection must live as long as the channel.
async fn open(config: &Config) -> Result<(Connection, Channel), Failure> {
    let properties = ConnectionProperties::default().with_connection_name("producer".into());
    let connection = timeout(CALL, Connection::connect(&config.amqp_url, properties)).await??;
    let channel = timeout(CALL, connection.create_channel()).await??;
    let prepared = async {
        let mut arguments = FieldTable::default();
        if let QueueType::Quorum = config.queue_type {
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        }
        let queue = ShortString::from(config.queue.as_str());
        channel.queue_declare(queue.clone(), QueueDeclareOptions::durable(), arguments).await?;
        if let Some(exchange) = &config.exchange {
            let exchange = ShortString::from(exchange.as_str());
            let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            channel
                .exchange_declare(exchange.clone(), ExchangeKind::Topic, durable, FieldTable::default())
                .await?;
            let key = config.routing_key.as_str().into();
            channel
                .queue_bind(queue, exchange, key, QueueBindOptions::default(), FieldTable::default())
                .await?;
        }
        channel.confirm_select(ConfirmSelectOptions::default()).await
    };
    timeout(CALL, prepared).await??;
    Ok((connection, channel))
}

async fn connected(
    config: &Config,
    channel: &Channel,
    ledger: &Shared,
    control: &mut watch::Receiver<Control>,
    next_id: &mut u64,
    unconfirmed: &mut VecDeque<Message>,
) -> Result<(), Ended> {
    let mut confirms = FuturesOrdered::new();
    for message in unconfirmed.iter() {
        confirms.push_back(send(config, channel, ledger, message).await?);
    }
    let mut now = *control.borrow_and_update();
    let connection = now.connection;
    ledger.connected();
    let mut ticks = pace(now, config.burst);
    loop {
        ledger.paused(now.paused);
        let finished = config.count > 0 && *next_id > config.count;
        if finished && unconfirmed.is_empty() {
            ledger.paused(true);
            return Ok(());
        }
        tokio::select! {
            biased;
            Some(confirm) = confirms.next() => {
                check(confirm)?;
                if let Some((id, body)) = unconfirmed.pop_front() {
                    ledger.confirmed(id, &body);
                }
            }
            changed = control.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                now = *control.borrow_and_update();
                if now.connection != connection && unconfirmed.is_empty() {
                    return Err(Ended::Lost("asked for another connection".into()));
                }
                ticks = pace(now, config.burst);
            }
            _ = ticks.tick(), if !now.paused && !finished && unconfirmed.len() < MOST_UNDER_WAY => {
                for _ in 0..config.burst.max(1) {
                    if config.count > 0 && *next_id > config.count {
                        break;
                    }
                    let message = (*next_id, body(*next_id, config.filling));
                    *next_id += 1;
                    // Noted first: if sending fails, nobody knows whether it arrived.
                    unconfirmed.push_back(message);
                    if let Some(message) = unconfirmed.back() {
                        confirms.push_back(send(config, channel, ledger, message).await?);
                    }
                }
            }
        }
    }
}

/// One tick for each burst.
fn pace(control: Control, burst: u32) -> Interval {
    let mut ticks = interval(Duration::from_secs(1) * burst.max(1) / control.rate.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    ticks
}

fn body(id: u64, filling: usize) -> Vec<u8> {
    serde_json::json!({ "id": id, "filling": "x".repeat(filling) }).to_string().into_bytes()
}

async fn send(
    config: &Config,
    channel: &Channel,
    ledger: &Shared,
    (id, body): &Message,
) -> Result<lapin::PublisherConfirm, Ended> {
    let (exchange, key) = match &config.exchange {
        Some(exchange) => (exchange.as_str(), config.routing_key.as_str()),
        None => ("", config.queue.as_str()),
    };
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(2)
        .with_message_id(id.to_string().into());
    ledger.sent();
    let publish = channel.basic_publish(exchange.into(), key.into(), options, body, properties);
    match timeout(CALL, publish).await {
        Ok(Ok(confirm)) => Ok(confirm),
        Ok(Err(error)) => Err(Ended::Lost(error.into())),
        Err(late) => Err(Ended::Lost(late.into())),
    }
}

fn check(confirm: lapin::Result<Confirmation>) -> Result<(), Ended> {
    match confirm {
        Ok(Confirmation::Ack(None)) => Ok(()),
        Ok(Confirmation::Ack(Some(_))) => {
            Err(Ended::Refused("a message that no queue took was returned".into()))
        }
        Ok(other) => Err(Ended::Refused(format!("not confirmed: {other:?}").into())),
        Err(error) => Err(Ended::Lost(error.into())),
    }
}
