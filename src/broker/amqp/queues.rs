//! Queues: look, declare, delete. Network I/O.

use std::time::Duration;

use lapin::Channel;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use tokio::time::{Instant, sleep};

use super::link::{
    Link, NOT_FOUND, NOT_IMPLEMENTED, PRECONDITION_FAILED, RESOURCE_LOCKED, Session, code, name,
};
use crate::api::control_queue;
use crate::broker::{BrokerError, MigrationQueues};

/// A reply queue goes by itself if whoever made it never comes back. The parking queue must not: it is declared
/// without arguments, as consumers that know only the plain messages declare it.
const REPLY_EXPIRES: Duration = Duration::from_secs(30 * 60);
/// A consumer that was just killed is noticed by the broker a moment later.
const IN_USE_FOR: Duration = Duration::from_secs(2);
const IN_USE_STEP: Duration = Duration::from_millis(50);

/// Consumers and ready messages of a queue, as the broker sees them now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub consumers: u32,
    pub messages: u32,
}

/// Looks at queues. A missing queue closes the channel (404), so it takes a new one then.
pub(super) struct Probe<'a> {
    link: &'a Link,
    session: Option<Session<'a>>,
}

impl<'a> Probe<'a> {
    pub(super) fn new(link: &'a Link) -> Self {
        Self { link, session: None }
    }

    /// None if there is no such queue.
    pub(super) async fn look(&mut self, queue: &str) -> Result<Option<Counts>, BrokerError> {
        let queue_name = name(queue)?;
        let session = match self.session.take() {
            Some(session) => session,
            None => self.link.session().await?,
        };
        let options = QueueDeclareOptions::default().passive();
        let declare = async move |channel: Channel| {
            channel.queue_declare(queue_name, options, FieldTable::default()).await
        };
        match session.attempt("queue.declare (passive)", declare).await? {
            Ok(found) => {
                let counts = Counts { consumers: found.consumer_count(), messages: found.message_count() };
                self.session = Some(session);
                Ok(Some(counts))
            }
            Err(error) if code(&error) == Some(NOT_FOUND) => Ok(None),
            Err(error) if code(&error) == Some(RESOURCE_LOCKED) => Err(BrokerError::QueueNotSupported {
                queue: queue.to_owned(),
                cause: "is exclusive: it goes with its consumer's connection; declare it without exclusive"
                    .to_owned(),
            }),
            Err(error) => Err(session.explain("queue.declare (passive)", &error)),
        }
    }

    pub(super) async fn must_exist(&mut self, queue: &str) -> Result<Counts, BrokerError> {
        self.look(queue).await?.ok_or_else(|| BrokerError::QueueNotFound { queue: queue.to_owned() })
    }
}

/// Parking queue and reply queue: durable, shared, so that they outlive this connection. Only where an
/// attempt begins: an order that comes when it is over must not find a parking queue. Nothing is begun on a broker that
/// takes no messages.
pub(super) async fn declare(session: &Session<'_>, queues: &MigrationQueues) -> Result<(), BrokerError> {
    session.must_take_messages().await?;
    declare_durable(session, &queues.parking(), FieldTable::default()).await?;
    declare_replies(session, queues).await.map(drop)
}

/// Gives the number of answers on it.
pub(super) async fn declare_replies(
    session: &Session<'_>,
    queues: &MigrationQueues,
) -> Result<u32, BrokerError> {
    let mut expires = FieldTable::default();
    let millis = i64::try_from(REPLY_EXPIRES.as_millis()).unwrap_or(i64::MAX);
    expires.insert("x-expires".into(), AMQPValue::LongLongInt(millis));
    declare_durable(session, &queues.reply(), expires).await
}

/// Gives the number of messages.
pub(super) async fn declare_durable(
    session: &Session<'_>,
    queue: &str,
    arguments: FieldTable,
) -> Result<u32, BrokerError> {
    let queue_name = name(queue)?;
    let declare = async move |channel: Channel| {
        channel.queue_declare(queue_name, QueueDeclareOptions::durable(), arguments).await
    };
    match session.attempt("queue.declare", declare).await? {
        Ok(declared) => Ok(declared.message_count()),
        Err(error) if code(&error) == Some(PRECONDITION_FAILED) => {
            Err(BrokerError::QueueDiffers { queue: queue.to_owned(), cause: error.to_string() })
        }
        Err(error) => Err(session.explain("queue.declare", &error)),
    }
}

/// The parking queue only if it is empty and unused; control queues of helpers once they are unused; the reply queue.
pub(super) async fn drop_all(link: &Link, queues: &MigrationQueues) -> Result<(), BrokerError> {
    let unused = QueueDeleteOptions { if_unused: true, ..QueueDeleteOptions::default() };
    let unused_and_empty = QueueDeleteOptions { if_empty: true, ..unused };
    delete(link, &queues.parking(), unused_and_empty).await?;
    for pod in &queues.helpers {
        delete(link, &control_queue(pod), unused).await?;
    }
    delete(link, &queues.reply(), QueueDeleteOptions::default()).await
}

async fn delete(link: &Link, queue: &str, options: QueueDeleteOptions) -> Result<(), BrokerError> {
    let until = Instant::now() + IN_USE_FOR;
    // What the broker is asked to see to itself.
    let mut conditions = Some(options);
    loop {
        if let Some(options) = conditions {
            let session = link.session().await?;
            let queue_name = name(queue)?;
            let deletion = async move |channel: Channel| channel.queue_delete(queue_name, options).await;
            match session.attempt("queue.delete", deletion).await? {
                Ok(_) => return Ok(()),
                Err(error) if code(&error) == Some(NOT_FOUND) => return Ok(()),
                Err(error) if code(&error) == Some(PRECONDITION_FAILED) => {}
                // A quorum queue knows no conditions, and where a virtual host makes such queues by default, ours
                // are: what a look shows has to do.
                Err(error) if code(&error) == Some(NOT_IMPLEMENTED) => conditions = None,
                Err(error) => return Err(session.explain("queue.delete", &error)),
            }
        }
        let Some(counts) = Probe::new(link).look(queue).await? else { return Ok(()) };
        if options.if_empty && counts.messages > 0 {
            return Err(BrokerError::NotEmpty { queue: queue.to_owned(), messages: counts.messages });
        }
        if conditions.is_none() && counts.consumers == 0 {
            conditions = Some(QueueDeleteOptions::default());
            continue;
        }
        if Instant::now() >= until {
            return Err(BrokerError::InUse { queue: queue.to_owned() });
        }
        sleep(IN_USE_STEP).await;
    }
}
