//! One connection, its channels, a limit for every call, and what lapin's errors mean. Network I/O.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ErrorKind};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::broker::{BrokerError, BrokerUrl};

/// Codes of AMQP 0-9-1.
pub(super) const ACCESS_REFUSED: u16 = 403;
pub(super) const NOT_FOUND: u16 = 404;
pub(super) const RESOURCE_LOCKED: u16 = 405;
pub(super) const PRECONDITION_FAILED: u16 = 406;
pub(super) const NOT_IMPLEMENTED: u16 = 540;
const NOT_ALLOWED: u16 = 530;
/// A queue that nobody has.
const NOWHERE: &str = "ms2m.nowhere";

/// Heartbeat in seconds: a dead peer is noticed within twice that.
const HEARTBEAT: u16 = 10;

/// How long single calls may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connect: Duration,
    pub call: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), call: Duration::from_secs(5) }
    }
}

/// A connection that is opened when it is needed.
pub(super) struct Link {
    url: BrokerUrl,
    name: String,
    pub(super) limits: Limits,
    connection: Mutex<Option<Arc<Connection>>>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("url", &self.url).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(url: BrokerUrl, name: String, limits: Limits) -> Self {
        Self { url, name, limits, connection: Mutex::new(None) }
    }

    pub(super) async fn close(&self) {
        if let Some(connection) = self.connection.lock().await.take() {
            // It is gone either way.
            let _ = timeout(self.limits.call, connection.close(200, "done".into())).await;
        }
    }

    /// A channel of its own with publisher confirms, on a living connection.
    pub(super) async fn session(&self) -> Result<Session<'_>, BrokerError> {
        let connection = self.connected().await?;
        let opening = timeout(self.limits.call, connection.create_channel()).await;
        let opening = opening.map_err(|_| self.overdue("opening a channel", &connection))?;
        let opening = self.heard(&connection, opening)?;
        let channel = opening.map_err(|error| self.explain("opening a channel", &error))?;
        let session = Session { link: self, connection, channel };
        session.confirms().await?;
        Ok(session)
    }

    async fn connected(&self) -> Result<Arc<Connection>, BrokerError> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = slot.as_ref().filter(|c| c.status().connected()) {
            // Another one would be blocked as well, and neither can be closed before the alarm is over.
            if connection.status().blocked() {
                return Err(self.blocked());
            }
            return Ok(Arc::clone(connection));
        }
        *slot = None;
        let mut uri: AMQPUri = self.url.reveal().parse().map_err(|cause| BrokerError::WrongUrl { cause })?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        uri.query.connection_timeout =
            Some(u64::try_from(self.limits.connect.as_millis()).unwrap_or(u64::MAX));
        let options = ConnectionProperties::default().with_connection_name(self.name.clone().into());
        let connection = match timeout(self.limits.connect, Connection::connect_uri(uri, options)).await {
            Ok(Ok(connection)) => Arc::new(connection),
            Ok(Err(error)) => return Err(self.explain("connecting", &error)),
            Err(_) => {
                let cause = format!("no connection within {:?}", self.limits.connect);
                return Err(BrokerError::Unreachable { broker: self.url.to_string(), cause });
            }
        };
        *slot = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// An outcome, unless its error is another channel's.
    fn heard<T>(
        &self,
        connection: &Connection,
        outcome: lapin::Result<T>,
    ) -> Result<lapin::Result<T>, BrokerError> {
        match outcome {
            Err(error) if is_anothers(connection, &error) => Err(self.lost(&error)),
            outcome => Ok(outcome),
        }
    }

    fn lost(&self, error: &lapin::Error) -> BrokerError {
        let cause = format!("the connection broke; the last that was heard: {error}");
        BrokerError::Unreachable { broker: self.url.to_string(), cause }
    }

    fn explain(&self, operation: &'static str, error: &lapin::Error) -> BrokerError {
        let broker = self.url.to_string();
        let cause = error.to_string();
        match (error.kind(), code(error)) {
            (_, Some(ACCESS_REFUSED | NOT_ALLOWED)) | (ErrorKind::AuthProviderError(_), _) => {
                BrokerError::AccessDenied { broker, cause }
            }
            (
                ErrorKind::IOError(_)
                | ErrorKind::RuntimeShutdownError(_)
                | ErrorKind::InvalidConnectionState(_)
                | ErrorKind::InvalidChannelState(..)
                | ErrorKind::MissingHeartbeatError,
                _,
            ) => BrokerError::Unreachable { broker, cause },
            // A hard error (such as CONNECTION_FORCED at the broker's shutdown) has ended the connection.
            _ if error.is_amqp_hard_error() => BrokerError::Unreachable { broker, cause },
            _ => BrokerError::Protocol { operation, cause },
        }
    }

    fn blocked(&self) -> BrokerError {
        let cause = "a memory or disk alarm blocks publishers".to_owned();
        BrokerError::Blocked { broker: self.url.to_string(), cause }
    }

    /// The connection may be dead without knowing it: the next call opens another one.
    fn overdue(&self, operation: &'static str, connection: &Connection) -> BrokerError {
        if connection.status().blocked() {
            return self.blocked();
        }
        if let Ok(mut slot) = self.connection.try_lock() {
            *slot = None;
        }
        BrokerError::Unreachable {
            broker: self.url.to_string(),
            cause: format!("no answer to {operation} within {:?}", self.limits.call),
        }
    }
}

/// Where a connection breaks while one of its channels is being closed with an error (404, say), lapin gives that error
/// to every call that is under way on any channel. It ends one channel only, so on a dead connection it tells nothing.
fn is_anothers(connection: &Connection, error: &lapin::Error) -> bool {
    error.is_amqp_soft_error() && !connection.status().connected()
}

/// The AMQP code of an error that the broker sent.
pub(super) fn code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

/// A channel on a connection that lives as long as the session.
pub(super) struct Session<'a> {
    link: &'a Link,
    connection: Arc<Connection>,
    channel: Channel,
}

impl Session<'_> {
    /// Any call, within the limit; lapin's own error for who must look at its code.
    ///
    /// Who asked may leave before the answer comes; the call goes on by itself, so that no channel is closed while the
    /// broker may be refusing what was asked on it: lapin takes those two at once for the end of the connection.
    pub(super) async fn attempt<T, F>(
        &self,
        operation: &'static str,
        call: impl FnOnce(Channel) -> F,
    ) -> Result<Result<T, lapin::Error>, BrokerError>
    where
        T: Send + 'static,
        F: Future<Output = lapin::Result<T>> + Send + 'static,
    {
        let call = tokio::spawn(timeout(self.link.limits.call, call(self.channel.clone())));
        match call.await {
            Ok(Ok(outcome)) => self.link.heard(&self.connection, outcome),
            Ok(Err(_)) => Err(self.link.overdue(operation, &self.connection)),
            Err(ended) => Err(BrokerError::Protocol { operation, cause: ended.to_string() }),
        }
    }

    /// Any call, within the limit.
    pub(super) async fn call<T, F>(
        &self,
        operation: &'static str,
        call: impl FnOnce(Channel) -> F,
    ) -> Result<T, BrokerError>
    where
        T: Send + 'static,
        F: Future<Output = lapin::Result<T>> + Send + 'static,
    {
        self.attempt(operation, call).await?.map_err(|error| self.explain(operation, &error))
    }

    async fn confirms(&self) -> Result<(), BrokerError> {
        let select = async |channel: Channel| channel.confirm_select(ConfirmSelectOptions::default()).await;
        self.call("confirm.select", select).await
    }

    pub(super) fn explain(&self, operation: &'static str, error: &lapin::Error) -> BrokerError {
        if is_anothers(&self.connection, error) {
            return self.link.lost(error);
        }
        self.link.explain(operation, error)
    }

    /// Fails where an alarm keeps the broker from taking messages. It tells only who publishes, so something that no
    /// queue takes is published; then it reads nothing more of that connection.
    pub(super) async fn must_take_messages(&self) -> Result<(), BrokerError> {
        self.publish(NOWHERE, &[], BasicProperties::default()).await?;
        if self.connection.status().blocked() {
            return Err(self.link.blocked());
        }
        self.confirms().await
    }

    /// Publishes to a queue through the default exchange, mandatory and confirmed. False if there is no such queue.
    pub(super) async fn publish(
        &self,
        queue: &str,
        body: &[u8],
        properties: BasicProperties,
    ) -> Result<bool, BrokerError> {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let key = name(queue)?;
        let body = body.to_owned();
        let publish = async move |channel: Channel| {
            channel.basic_publish(ShortString::default(), key, options, &body, properties).await?.await
        };
        match self.call("basic.publish", publish).await? {
            Confirmation::Ack(None) => Ok(true),
            Confirmation::Ack(Some(_)) => Ok(false),
            Confirmation::Nack(_) => Err(refused("the broker rejected it (nack)")),
            Confirmation::NotRequested => Err(refused("publisher confirms are off")),
        }
    }
}

fn refused(cause: &str) -> BrokerError {
    BrokerError::Protocol { operation: "basic.publish", cause: cause.to_owned() }
}

/// A name as AMQP carries it: at most 255 bytes.
pub(super) fn name(name: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(name)
        .map_err(|error| BrokerError::Protocol { operation: "queue name", cause: error.to_string() })
}
